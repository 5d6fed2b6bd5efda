//! Against a server of the official SDK, over streamable HTTP and as a program.

use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, dev::ServerHandle, web};
use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyStream, Full};
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{CallToolResponse, ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig},
    service::RequestContext,
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
    },
};
use serde_json::json;

use super::*;
use crate::ids::{SessionId, TurnId, UserId};

const PNG: &str = "iVBORw0KGgo=";

/// Tells the process that it is the server.
const IS_SERVER: &str = "JUNE_TEST_MCP_SERVER";

/// Whether the server has a further tool.
static HAS_MORE: AtomicBool = AtomicBool::new(false);

struct Home;

impl ServerHandler for Home {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().enable_tool_list_changed().build())
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let schema = json!({"type": "object", "properties": {"on": {"type": "boolean"}}});
        let names = ["light", "photo", "fail", "endless", "hang", "die", "grow", "näme"].into_iter();
        let more = HAS_MORE.load(Ordering::Relaxed).then_some("more");
        let tool = |name| Tool::new(name, "For tests.", Arc::new(schema.as_object().unwrap().clone()));
        Ok(ListToolsResult::with_all_items(names.chain(more).map(tool).collect()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let text = |text: String| CallToolResult::success(vec![ContentBlock::text(text)]);
        let result = match request.name.as_ref() {
            "light" => text(Value::Object(request.arguments.unwrap_or_default()).to_string()),
            "photo" => CallToolResult::success(vec![ContentBlock::image(PNG, "image/png")]),
            "fail" => CallToolResult::error(vec![ContentBlock::text("the bulb is broken")]),
            "endless" => text("x".repeat(5_000_000)),
            "hang" => std::future::pending().await,
            "die" => std::process::exit(1),
            "grow" => {
                HAS_MORE.store(true, Ordering::Relaxed);
                let _ = context.peer.notify_tool_list_changed().await;
                text("grown".into())
            }
            _ => return Err(ErrorData::invalid_params("no such tool", None)),
        };
        Ok(result.into())
    }
}

/// Not a test: the server, where a test runs this program as one.
#[test]
fn server_of_the_other_tests() {
    if std::env::var_os(IS_SERVER).is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let running = Home.serve(rmcp::transport::stdio()).await.unwrap();
        running.waiting().await.unwrap();
    });
}

fn program() -> McpConfig {
    let command = std::env::current_exe().unwrap().display().to_string();
    let args = ["--exact", "tools::mcp::tests::server_of_the_other_tests", "--nocapture"];
    let env = [(IS_SERVER.to_owned(), Secret::new("1"))];
    let transport =
        McpTransport::Stdio { command, args: args.map(str::to_owned).into(), env: env.into_iter().collect() };
    McpConfig { name: "home".into(), transport }
}

/// The SDK's HTTP server behind actix.
async fn http_server() -> (McpConfig, ServerHandle) {
    crate::gateway::install_crypto_providers();
    let service = || {
        let sessions = Arc::new(LocalSessionManager::default());
        StreamableHttpService::new(|| Ok(Home), sessions, StreamableHttpServerConfig::default())
    };
    let service = web::Data::new(service());
    let server =
        HttpServer::new(move || App::new().app_data(service.clone()).default_service(web::to(answer)));
    let server = server.workers(1).bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/mcp", server.addrs()[0]);
    let server = server.run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    (McpConfig { name: "home".into(), transport: McpTransport::Http { url, token: None } }, handle)
}

type Service = StreamableHttpService<Home, LocalSessionManager>;

async fn answer(request: HttpRequest, body: Bytes, service: web::Data<Service>) -> HttpResponse {
    let mut asked =
        ::http::Request::builder().method(request.method().as_str()).uri(request.uri().to_string());
    for (name, value) in request.headers() {
        asked = asked.header(name.as_str(), value.as_bytes());
    }
    let answered = service.handle(asked.body(Full::new(body)).unwrap()).await;
    let status = actix_web::http::StatusCode::from_u16(answered.status().as_u16()).unwrap();
    let mut response = HttpResponse::build(status);
    for (name, value) in answered.headers() {
        response.append_header((name.as_str(), value.as_bytes()));
    }
    let frames = BodyStream::new(answered.into_body());
    response.streaming(Box::pin(frames.filter_map(|frame| async {
        frame.ok().and_then(|frame| frame.into_data().ok()).map(Ok::<_, std::io::Error>)
    })))
}

/// Waits until the server offers a tool of this name, or none.
async fn offers(server: &McpServer, name: Option<&str>) {
    let is_so = || match name {
        Some(name) => server.tools().iter().any(|tool| tool.tool == name),
        None => server.tools().is_empty(),
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.expect("the server has what is waited for");
}

async fn call(server: &McpServer, tool: &str) -> Result<ToolOutput, String> {
    let invocation = Invocation {
        session: SessionId::from_u128(7),
        user: UserId::parse("ann").unwrap(),
        turn: TurnId(1),
        call_id: "call_1_1".into(),
        name: format!("home__{tool}"),
        arguments: json!({"on": true}),
    };
    server.call(tool, &invocation).await
}

async fn check(server: &McpServer) {
    offers(server, Some("light")).await;
    let tools = server.tools();
    let names: Vec<_> = tools.iter().map(|tool| tool.spec.name.as_str()).collect();
    assert!(names.contains(&"home__light") && !names.contains(&"home__näme"), "{names:?}");
    assert_eq!(tools[0].spec.parameters["properties"]["on"]["type"], "boolean");

    assert_eq!(call(server, "light").await.unwrap().text, r#"{"on":true}"#);
    assert_eq!(call(server, "photo").await.unwrap().image.unwrap().media_type(), "image/png");
    assert_eq!(call(server, "fail").await.unwrap_err(), "the bulb is broken");
    assert_eq!(call(server, "endless").await.unwrap_err(), "the result has more than 16384 bytes");
    assert!(call(server, "none").await.unwrap_err().contains("no such tool"));
    let hanging = tokio::time::timeout(Duration::from_millis(50), call(server, "hang")).await;
    assert!(hanging.is_err(), "it hangs");
    assert!(call(server, "light").await.is_ok(), "a call that hangs blocks no other");
}

#[actix_web::test]
async fn a_program_offers_tools_and_is_started_again_when_it_dies() {
    let server = McpServer::start(program());
    check(&server).await;
    call(&server, "grow").await.unwrap();
    offers(&server, Some("more")).await;

    let dead = call(&server, "die").await;

    assert!(dead.is_err(), "{dead:?}");
    offers(&server, None).await;
    let down = call(&server, "light").await.unwrap_err();
    assert!(down.starts_with("the MCP server home is down: "), "{down}");
    offers(&server, Some("light")).await;
    assert!(call(&server, "light").await.is_ok());
}

#[actix_web::test]
async fn a_server_by_http_offers_tools() {
    let (config, handle) = http_server().await;
    let server = McpServer::start(config);

    check(&server).await;

    drop(server);
    handle.stop(false).await;
}

#[actix_web::test]
async fn a_server_that_never_starts_offers_nothing_and_says_why() {
    let transport =
        McpTransport::Stdio { command: "/nowhere/mcp".into(), args: Vec::new(), env: BTreeMap::new() };
    let server = McpServer::start(McpConfig { name: "home".into(), transport });

    let reason = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            let called = call(&server, "light").await;
            if let Err(reason) = called
                && !reason.contains("not connected yet")
            {
                return reason;
            }
            tokio::task::yield_now().await;
        }
    });

    let reason = reason.await.unwrap();
    assert!(reason.contains("/nowhere/mcp"), "{reason}");
    assert!(server.tools().is_empty());
}

#[test]
fn a_program_does_not_inherit_the_secrets_of_the_gateway() {
    let program = super::program("mcp", &[], &BTreeMap::from([("KEY".into(), Secret::new("own"))]));

    let names: Vec<_> = program.as_std().get_envs().map(|(name, _)| name.to_owned()).collect();
    let known = ["HOME", "KEY", "LANG", "PATH", "TMPDIR"];
    assert!(names.iter().all(|name| known.iter().any(|known| name == known)), "{names:?}");
    assert!(names.iter().any(|name| name == "KEY"));
}
