//! One user who takes too much, and others who do not notice (docs/LIMITS.md).

mod deny_list;
mod llm;
mod sessions;

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

use crate::support::{BACKEND, TestGateway, USERS_SECRET};

const KEYS: [(&str, &str); 3] =
    [("API_KEYS", BACKEND), ("HOST", "127.0.0.1"), ("AUTH_JWT_SECRET", USERS_SECRET)];

/// A user's own token, for gateways with [`KEYS`].
fn token(user: &str) -> String {
    let claims = json!({"sub": "1", "email": user, "exp": june_edge::clock::unix_s() + 600});
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(USERS_SECRET.as_bytes()))
        .unwrap()
}

/// Status, code and `Retry-After` of an answer.
struct Answer {
    status: u16,
    body: Value,
    retry_after: Option<u64>,
}

async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let header = response.headers().get("retry-after").map(|value| value.to_str().unwrap().parse().unwrap());
    let bytes = response.bytes().await.unwrap();
    Answer { status, body: serde_json::from_slice(&bytes).unwrap_or_default(), retry_after: header }
}

/// How often this limit was reached, in this process.
async fn refusals(gateway: &TestGateway, limit: &str) -> u64 {
    let request = gateway.http.get(format!("{}/metrics", gateway.url));
    let mut response = request.try_clone().unwrap().send().await.unwrap();
    if response.status() == 401 {
        response = request.header("X-API-Key", BACKEND).send().await.unwrap();
    }
    let metrics = response.text().await.unwrap();
    let series = format!("june_limit_refusals_total{{limit=\"{limit}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&series));
    line.unwrap().parse().unwrap()
}
