//! `kill -9` at any moment loses nothing that was acknowledged.

use june_client::{Event, SessionInfo};
use june_edge::protocol::ToClient;

use crate::support::{Launch, soon, times};

/// Rounds each [time](times), and the turns that are acknowledged before each kill.
const ROUNDS: usize = 4;
const TURNS: usize = 25;

#[actix_web::test]
async fn kill_9_in_the_middle_of_conversations_loses_nothing_that_was_acknowledged() {
    let data = tempfile::tempdir().unwrap();
    let launch = Launch::on(data.path());
    let mut acknowledged: Vec<(SessionInfo, Vec<u64>)> = Vec::new();
    for round in 0..ROUNDS * times() {
        let mut june = launch.start().await;
        for (session, places) in &acknowledged {
            let there = june.places(session).await;
            let lost: Vec<_> = there_is_not(places, &there);
            assert_eq!(lost, Vec::<u64>::new(), "round {round}");
        }
        assert_eq!(june.metric("june_store_lost_writes_total").await, 0.0);
        let mut glasses = june.glasses("ann").await;
        let mut places = Vec::new();
        for n in 0..TURNS {
            glasses.say(&format!("Line {n}")).await;
            places.push(glasses.turn_saved().await);
        }
        // More are on their way when it ends.
        for n in 0..TURNS {
            glasses.say(&format!("More {n}")).await;
        }
        places.push(glasses.turn_saved().await);
        june.kill();
        // What was still acknowledged is in the socket's buffer.
        soon(async {
            loop {
                match glasses.channel.next().await {
                    Event::Message(_, ToClient::TurnSaved { history_seq, .. }) => places.push(history_seq),
                    Event::Closed { .. } => return,
                    _ => {}
                }
            }
        })
        .await;
        acknowledged.push((glasses.session, places));
    }
}

fn there_is_not(wanted: &[u64], there: &[u64]) -> Vec<u64> {
    wanted.iter().copied().filter(|place| !there.contains(place)).collect()
}
