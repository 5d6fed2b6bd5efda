//! The system wants the gateway to stop, more than once.

use crate::support::Launch;

#[actix_web::test]
async fn a_second_sigterm_cuts_nothing_short() {
    let data = tempfile::tempdir().unwrap();
    let launch = Launch::on(data.path());
    let mut june = launch.start().await;
    let mut glasses = june.glasses("ann").await;
    let first = glasses.ask_and_save("One").await;
    glasses.say("Two").await;
    let second = glasses.turn_saved().await;

    june.terminate();
    june.logged("SIGTERM").await;
    june.terminate();

    assert!(june.ended().await.success(), "{}", june.log());
    let june = launch.start().await;
    let places = june.places(&glasses.session).await;
    assert!(places.contains(&first) && places.contains(&second), "{places:?}");
    assert_eq!(june.metric("june_store_lost_writes_total").await, 0.0);
}
