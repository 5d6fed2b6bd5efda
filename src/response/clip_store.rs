//! Clips for clients that play URLs only: WAV files in memory, each under an unguessable name, for a short
//! time.
//!
//! Bounded: a session has at most [`MAX_PER_SESSION`] clips of each [`ClipUse`], a user [`MAX_PER_USER`], all users
//! together 64 MiB. Beyond that the oldest of the session or the user goes; where all clips are too many, the oldest of
//! the user who has the most. A clip that is older than [`LIFETIME`] is removed.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use rand::{Rng, distr::Alphanumeric};

use crate::{
    audio::wav,
    clock,
    ids::{SessionId, UserId},
    limits::Limit,
};

/// How long a clip can be fetched: longer than its duration and the time that a player takes to start.
pub const LIFETIME: Duration = Duration::from_secs(120);

/// The clip that is played, the one before, and those that a client gets again after it reconnected.
const MAX_PER_SESSION: usize = 4;

/// The same for all sessions of a user.
const MAX_PER_USER: usize = 8;

/// The memory of all clips together.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// 190 bits of entropy.
const NAME_LENGTH: usize = 32;

/// The clips of this gateway. Cheap to clone.
#[derive(Clone, Default)]
pub struct Clips {
    shelf: Arc<Mutex<Shelf>>,
}

/// Oldest first.
#[derive(Default)]
struct Shelf {
    clips: VecDeque<Clip>,
    bytes: usize,
}

/// What a clip is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClipUse {
    /// The client plays it as a part of an answer, and has no use for it when the answer is cut.
    Playback,
    /// Whoever asked over REST fetches it some time.
    Recording,
}

struct Clip {
    name: String,
    clip_use: ClipUse,
    session: SessionId,
    user: UserId,
    until: Instant,
    wav: Bytes,
}

impl Clips {
    /// Keeps mono samples as a WAV file; gives the name it is fetched by.
    pub fn keep(
        &self,
        clip_use: ClipUse,
        session: SessionId,
        user: &UserId,
        samples: &[i16],
        rate_hz: u32,
    ) -> String {
        let name: String = rand::rng().sample_iter(Alphanumeric).take(NAME_LENGTH).map(char::from).collect();
        let clip = Clip {
            name: name.clone(),
            clip_use,
            session,
            user: user.clone(),
            until: clock::now() + LIFETIME,
            wav: wav::encode(samples, rate_hz),
        };
        self.shelf.lock().put(clip);
        name
    }

    /// A clip by its name.
    pub fn get(&self, name: &str) -> Option<Bytes> {
        let mut shelf = self.shelf.lock();
        shelf.expire(clock::now());
        shelf.clips.iter().find(|clip| clip.name == name).map(|clip| clip.wav.clone())
    }

    /// Removes all clips of a session.
    pub fn forget(&self, session: SessionId) {
        self.shelf.lock().remove_where(|clip| clip.session == session);
    }

    /// Removes the clips of a session that its client plays.
    pub fn forget_playback(&self, session: SessionId) {
        let is_played = |clip: &Clip| clip.session == session && clip.clip_use == ClipUse::Playback;
        self.shelf.lock().remove_where(is_played);
    }
}

impl Shelf {
    fn put(&mut self, clip: Clip) {
        self.expire(clock::now());
        let (session, clip_use, user) = (clip.session, clip.clip_use, clip.user.clone());
        self.bytes += clip.wav.len();
        self.clips.push_back(clip);
        let is_alike = |clip: &Clip| clip.session == session && clip.clip_use == clip_use;
        self.remove_oldest_over(MAX_PER_SESSION, is_alike);
        if self.remove_oldest_over(MAX_PER_USER, |clip| clip.user == user) {
            Limit::Clips.count();
        }
        while self.bytes > MAX_BYTES
            && let Some(user) = self.user_with_most()
        {
            Limit::Clips.count();
            self.remove_oldest_over(0, |clip| clip.user == user);
        }
    }

    /// Removes the oldest of these clips if there are more than `max`.
    fn remove_oldest_over(&mut self, max: usize, of: impl Fn(&Clip) -> bool) -> bool {
        let is_over = self.clips.iter().filter(|clip| of(clip)).count() > max;
        let oldest = self.clips.iter().position(of).filter(|_| is_over);
        let Some(clip) = oldest.and_then(|at| self.clips.remove(at)) else { return false };
        self.bytes -= clip.wav.len();
        true
    }

    fn user_with_most(&self) -> Option<UserId> {
        let mut bytes: HashMap<&UserId, usize> = HashMap::new();
        for clip in &self.clips {
            *bytes.entry(&clip.user).or_insert(0) += clip.wav.len();
        }
        bytes.into_iter().max_by_key(|(_, bytes)| *bytes).map(|(user, _)| user.clone())
    }

    fn expire(&mut self, now: Instant) {
        while self.clips.front().is_some_and(|clip| now >= clip.until) {
            self.remove_first();
        }
    }

    fn remove_first(&mut self) {
        if let Some(clip) = self.clips.pop_front() {
            self.bytes -= clip.wav.len();
        }
    }

    fn remove_where(&mut self, unwanted: impl Fn(&Clip) -> bool) {
        self.clips.retain(|clip| !unwanted(clip));
        self.bytes = self.clips.iter().map(|clip| clip.wav.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: SessionId = SessionId::from_u128(1);
    const BOB: SessionId = SessionId::from_u128(2);

    fn ann() -> UserId {
        UserId::parse("ann").unwrap()
    }

    fn bob() -> UserId {
        UserId::parse("bob").unwrap()
    }

    fn keep(clips: &Clips, session: SessionId, user: &UserId, samples: &[i16], rate_hz: u32) -> String {
        clips.keep(ClipUse::Playback, session, user, samples, rate_hz)
    }

    #[test]
    fn a_clip_is_a_wav_file_that_others_can_read() {
        let clips = Clips::default();
        let name = keep(&clips, ANN, &ann(), &[1, -2, 300], 22_050);

        let wav = clips.get(&name).unwrap();

        let mut reader = hound::WavReader::new(wav.as_ref()).unwrap();
        assert_eq!((reader.spec().channels, reader.spec().sample_rate), (1, 22_050));
        let samples: Vec<i16> = reader.samples().map(Result::unwrap).collect();
        assert_eq!(samples, [1, -2, 300]);
    }

    #[test]
    fn a_clip_has_a_name_of_its_own_and_no_other_opens_it() {
        let clips = Clips::default();
        let (one, two) = (keep(&clips, ANN, &ann(), &[1], 8_000), keep(&clips, ANN, &ann(), &[1], 8_000));
        assert_ne!(one, two);
        assert_eq!(clips.get(&one[..NAME_LENGTH - 1]), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clip_can_be_fetched_for_a_while_only() {
        let clips = Clips::default();
        let name = keep(&clips, ANN, &ann(), &[1], 8_000);
        tokio::time::advance(LIFETIME - Duration::from_millis(1)).await;
        assert!(clips.get(&name).is_some());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(clips.get(&name), None);
        assert_eq!(clips.shelf.lock().bytes, 0);
    }

    #[test]
    fn a_session_has_only_so_many_clips_and_takes_no_one_elses_place() {
        let clips = Clips::default();
        let bobs = keep(&clips, BOB, &bob(), &[1], 8_000);
        let names: Vec<String> =
            (0..=MAX_PER_SESSION).map(|_| keep(&clips, ANN, &ann(), &[1], 8_000)).collect();
        assert_eq!(clips.get(&names[0]), None);
        assert!(names[1..].iter().all(|name| clips.get(name).is_some()));
        assert!(clips.get(&bobs).is_some());

        clips.forget(ANN);
        assert!(names.iter().all(|name| clips.get(name).is_none()));
        assert!(clips.get(&bobs).is_some());
    }

    #[test]
    fn clips_of_an_answer_that_is_cut_take_no_recording_with_them() {
        let clips = Clips::default();
        let recording = clips.keep(ClipUse::Recording, ANN, &ann(), &[1], 8_000);
        let names: Vec<String> =
            (0..=MAX_PER_SESSION).map(|_| keep(&clips, ANN, &ann(), &[1], 8_000)).collect();

        clips.forget_playback(ANN);

        assert!(names.iter().all(|name| clips.get(name).is_none()));
        assert!(clips.get(&recording).is_some());
        clips.forget(ANN);
        assert_eq!(clips.get(&recording), None);
    }

    #[test]
    fn a_user_has_only_so_many_clips_whatever_the_number_of_sessions() {
        let clips = Clips::default();
        let names: Vec<String> = (0..=MAX_PER_USER as u128)
            .map(|n| keep(&clips, SessionId::from_u128(n), &ann(), &[1], 8_000))
            .collect();
        assert_eq!(clips.get(&names[0]), None);
        assert!(names[1..].iter().all(|name| clips.get(name).is_some()));
    }

    #[test]
    fn where_all_clips_are_too_many_the_user_with_the_most_loses_the_oldest() {
        let clips = Clips::default();
        let bobs = keep(&clips, BOB, &bob(), &[1], 8_000);
        let samples = vec![0; MAX_BYTES / 8];
        let names: Vec<String> =
            (10..16).map(|n| keep(&clips, SessionId::from_u128(n), &ann(), &samples, 8_000)).collect();

        assert!(clips.shelf.lock().bytes <= MAX_BYTES);
        assert!(clips.get(&bobs).is_some(), "though it is the oldest");
        assert_eq!(names.iter().filter(|name| clips.get(name).is_some()).count(), 3);
        assert!(clips.get(&names[5]).is_some());
    }
}
