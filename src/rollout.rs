//! Features that are on for a share of the users: always the same ones, and the more the share grows,
//! the more of them.

use sha2::{Digest, Sha256};

use crate::ids::UserId;

/// Whether a feature is on for a user where it is on for so many of a hundred. Each feature has its own
/// order of users, so that not the same ones get everything first.
pub fn includes(feature: &str, user: &UserId, percent: u8) -> bool {
    let hash = Sha256::new().chain_update(feature).chain_update([0]).chain_update(user.as_str()).finalize();
    let place = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
    u64::from(place) * 100 < u64::from(percent) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> impl Iterator<Item = UserId> {
        (0..2_000).map(|n| UserId::parse(&format!("user-{n}@example.org")).expect("a good name"))
    }

    #[test]
    fn the_share_is_about_what_was_asked_for_and_users_stay_in_as_it_grows() {
        for (percent, expected) in [(0, 0..=0), (10, 140..=260), (50, 900..=1_100), (100, 2_000..=2_000)] {
            let inside = users().filter(|user| includes("a", user, percent)).count();
            assert!(expected.contains(&inside), "{percent} %: {inside}");
        }
        assert!(users().all(|user| {
            (1..=100).all(|percent| includes("a", &user, percent) || !includes("a", &user, percent - 1))
        }));
    }

    #[test]
    fn the_same_user_is_inside_on_every_machine_and_in_every_release() {
        let inside: Vec<u8> = ["ann", "bob", "john"]
            .iter()
            .map(|name| {
                let user = UserId::parse(name).expect("a good name");
                (0..=100).find(|percent| includes("client-vad", &user, *percent)).expect("100 is everybody")
            })
            .collect();
        assert_eq!(inside, [76, 42, 23]);
    }

    #[test]
    fn two_features_do_not_choose_the_same_users() {
        let both = users().filter(|user| includes("a", user, 50) && includes("b", user, 50)).count();
        assert!((400..600).contains(&both), "{both}");
    }
}
