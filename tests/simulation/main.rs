//! Thousands of sessions in virtual time, with random inputs and faults, against a small reference model.
//!
//! Each run is a function of its seed. A failure prints the seed and the last steps; run one again with
//! `JUNE_SIMULATION_SEED=… cargo test --test simulation`. `JUNE_SIMULATION_RUNS` sets how many runs there are.

mod model;
mod world;

use std::{env, panic, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};

use self::world::World;

/// Runs where nothing else is said.
const RUNS: u64 = 1_000;

/// Steps of one run.
const STEPS: usize = 160;

fn setting(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().expect("a number"))
}

#[test]
fn sessions_do_what_the_model_says_under_random_inputs_and_faults() {
    let seeds: Vec<u64> = match setting("JUNE_SIMULATION_SEED") {
        Some(seed) => vec![seed],
        None => (0..setting("JUNE_SIMULATION_RUNS").unwrap_or(RUNS)).collect(),
    };
    let (mut turns, mut released) = (0, 0);
    for seed in &seeds {
        let outcome = panic::catch_unwind(|| run(*seed));
        match outcome {
            Ok(of_run) => {
                turns += of_run.0;
                released += of_run.1;
            }
            Err(cause) => {
                eprintln!("seed {seed} failed: JUNE_SIMULATION_SEED={seed}");
                panic::resume_unwind(cause);
            }
        }
    }
    println!("{} sessions, {turns} turns answered, {released} of them prepared before", seeds.len());
    assert!(turns as usize > seeds.len(), "the simulation reaches what it is about: {turns} turns");
    assert!(released > 0 || seeds.len() < 100, "none was prepared before its end");
}

/// One session; how many turns were answered to their end, and how many were prepared for before.
fn run(seed: u64) -> (u64, u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::new(random.random_bool(0.5));
    for _ in 0..STEPS {
        if world.is_over() {
            break;
        }
        step(&mut world, &mut random);
        let wait = match random.random_range(0..10) {
            0 => random.random_range(1_000..8_000),
            1..=4 => random.random_range(20..400),
            _ => random.random_range(0..20),
        };
        world.wait(Duration::from_millis(wait));
    }
    world.settle();
    (world.model().answered(), world.model().released())
}

fn step(world: &mut World, random: &mut StdRng) {
    match random.random_range(0..100) {
        // The network.
        0..=5 => world.connect(random.random_bool(0.8)),
        6..=7 => world.lose_connection(),
        8 => world.late_close(),
        9 => world.stale_message(),
        // The user.
        10..=25 => {
            world.room_audio(random.random_bool(0.5), random.random_range(1..40));
            judge(world, random);
        }
        26..=35 => {
            world.channel_audio(random.random_bool(0.5), random.random_range(1..40));
            judge(world, random);
        }
        36 => world.say(r#"{"type":"VAD","status":true}"#),
        37 => world.say(r#"{"type":"VAD","status":false}"#),
        38..=40 => world.typed(),
        41 => world.say(r#"{"type":"interrupt"}"#),
        42..=44 => world.report_playhead(),
        45 => world.say(r#"{"type":"subscribe:participants"}"#),
        46 => world.say(r#"{"type":"nonsense","id":"1"}"#),
        // The providers.
        47..=52 => world.interim(),
        53..=62 => world.transcribe(random.random_range(0..10)),
        63..=75 => world.llm(random.random_range(0..8)),
        76..=90 => world.tts(random.random_range(0..12)),
        // The room.
        91..=93 => world.agent(random.random_range(0..3)),
        94 => world.source_gone(),
        // Deploys and crashes.
        95 => world.restart(),
        96 if random.random_bool(0.05) => world.say(r#"{"type":"goodbye"}"#),
        97..=99 => judge(world, random),
        _ => {}
    }
}

/// The turn model and the STT tell what they know of a pause: soon, late or never.
fn judge(world: &mut World, random: &mut StdRng) {
    if random.random_bool(0.8) {
        world.judge(random.random_bool(0.9).then(|| random.random_range(0.0..1.0)));
    }
}
