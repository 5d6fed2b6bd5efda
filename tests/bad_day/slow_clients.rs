//! Clients that write slowly, and clients that do not read.

use std::time::Duration;

use futures::future::join_all;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::support::{June, Launch, times};

const OF_EACH: usize = 20;

/// What a conversation beside them has to manage.
const TURNS: usize = 20;

/// Sends a request a byte at a time, and another one whenever the gateway has had enough.
async fn write_slowly(address: &str) {
    let request = "POST /api/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n";
    loop {
        let mut connection = TcpStream::connect(address).await.unwrap();
        for byte in request.bytes().chain([b' '; 60_000]) {
            if connection.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Makes the gateway send, and reads none of it; comes again whenever it is cut.
async fn type_and_read_nothing(june: &June, n: usize) {
    let line = format!(r#"{{"type":"say","text":"{}"}}"#, "on and on ".repeat(300));
    loop {
        let mut glasses = june.glasses(&format!("deaf-{n}")).await;
        while glasses.channel.writer().send_raw(Ok(line.clone())).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

#[actix_web::test]
async fn slow_writers_and_clients_that_do_not_read_keep_nobody_waiting() {
    let data = tempfile::tempdir().unwrap();
    let june = Launch::on(data.path()).start().await;
    let mut ann = june.glasses("ann").await;
    let address = june.url.strip_prefix("http://").unwrap();

    let writers = join_all((0..OF_EACH).map(|_| write_slowly(address)));
    let readers = join_all((0..OF_EACH).map(|n| type_and_read_nothing(&june, n)));
    let conversation = async {
        for _ in 0..TURNS * times() {
            ann.ask_and_save("Are you still there?").await;
            // A client that types more than 100 lines a second is one of the others.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // New clients are let in, too.
        june.glasses("bob").await.ask_and_save("And I?").await;
    };
    tokio::select! {
        () = conversation => {}
        (_, _) = futures::future::join(writers, readers) => unreachable!("they never stop"),
    }

    assert_eq!(june.get("/readyz").await.0, 200);
}
