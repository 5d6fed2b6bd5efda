//! WebSocket conformance: `crates/test-support` has the cases.

use crate::support::TestGateway;

/// The cases of Autobahn's groups 1 to 7 and 10.
const CASES: usize = 247;

#[actix_web::test]
async fn every_case_of_rfc_6455_passes() {
    let gateway = TestGateway::start().await;

    let report = test_support::rfc6455::run(gateway.address()).await;

    println!("{report}");
    assert!(report.failed.is_empty(), "{report}");
    assert_eq!(report.passed, CASES);
}
