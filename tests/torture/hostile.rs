//! Malformed and extreme input at every operation: the server always responds, and never with a
//! server error.

use crate::support::{Answer, Backend, Call, TestApp};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};

/// An operation of the OpenAPI document.
struct Operation {
    method: Method,
    path: String,
    parameters: Vec<Value>,
    /// An example of its body, and whether that is NDJSON.
    body: Option<(Value, bool)>,
}

/// All operations of the document.
fn operations() -> Vec<Operation> {
    let document = serde_json::to_value(octopus::api::document()).unwrap();
    let example = |content: &Value| {
        let schema = &content["application/json"]["schema"];
        let schema = schema.get("oneOf").map_or(schema, |either| &either[0]);
        let name = schema["$ref"].as_str()?.rsplit('/').next()?.to_owned();
        Some((document["components"]["schemas"][name]["example"].clone(), false))
    };
    let mut all = vec![];
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let content = &operation["requestBody"]["content"];
            let lines = content["application/x-ndjson"]["example"].as_str();
            let lines = lines.and_then(|lines| lines.lines().next());
            let lines = lines.map(|line| (serde_json::from_str(line).unwrap(), true));
            all.push(Operation {
                method: method.to_uppercase().parse().unwrap(),
                path: path.clone(),
                parameters: operation["parameters"].as_array().cloned().unwrap_or_default(),
                body: lines.or_else(|| example(content)),
            });
        }
    }
    assert!(all.len() > 50 && all.iter().filter(|o| o.body.is_some()).count() > 15);
    all
}

impl Operation {
    /// Its path, with id 1 or a known name for every parameter.
    fn target(&self) -> String {
        let fill = |path: String, parameter: &Value| {
            let name = parameter["name"].as_str().unwrap();
            let value = if parameter["schema"]["type"] == "integer" {
                "1"
            } else if name == "username" {
                "ada"
            } else {
                parameter["example"].as_str().expect("a path parameter has an example")
            };
            path.replace(&format!("{{{name}}}"), value)
        };
        let parameters = self.parameters.iter().filter(|parameter| parameter["in"] == "path");
        parameters.fold(self.path.clone(), fill)
    }

    /// The same parameters in another path.
    fn with_path(&self, path: String) -> Self {
        let (method, parameters) = (self.method.clone(), self.parameters.clone());
        Self { method, path, parameters, body: None }
    }

    fn send(&self, callers: &Callers<'_>, target: &str) -> [Call; 2] {
        let call = || {
            let call = callers.app.call(self.method.clone(), target);
            // An event stream does not end.
            call.header("Accept", "application/json")
        };
        [call().key(&callers.key), call().session(&callers.session)]
    }

    fn content_type(&self) -> &'static str {
        match self.body {
            Some((_, true)) => "application/x-ndjson",
            _ => "application/json",
        }
    }
}

/// An API key and a session.
struct Callers<'a> {
    app: &'a TestApp,
    key: String,
    session: String,
}

/// Creates a key and a session that are not those with id 1, which the requests may delete.
async fn callers(app: &TestApp) -> Callers<'_> {
    let first = app.admin().await;
    let (key, _) = app.key(&first, "admin").await;
    let (ada, bob) = (app.user("ada").await, app.user("bob").await);
    let session = app.session_of(bob).await;
    let conversation = app.conversation(&key, &[ada, bob]).await;
    let message = json!({"role": "user", "content": "hello"});
    let messages = format!("/api/v1/conversations/{conversation}/messages");
    app.post(&messages, message).key(&key).send().await.expect(201);
    Callers { app, key, session }
}

impl Callers<'_> {
    /// Asserts that both credentials are still valid, so that all requests were authenticated.
    async fn are_still_known(&self) {
        self.app.get("/api/v1/api-keys/me").key(&self.key).send().await.expect(200);
        self.app.get("/api/v1/users/me").session(&self.session).send().await.expect(200);
    }
}

/// Asserts a 4xx response.
#[track_caller]
fn assert_client_error(answer: &Answer, what: &str) {
    assert!((400..500).contains(&answer.status), "{what}: {} {}", answer.status, answer.text);
}

/// Asserts that the response is not a 5xx.
#[track_caller]
fn assert_no_server_error(answer: &Answer, what: &str) {
    assert!(answer.status < 500, "{what}: {} {}", answer.status, answer.text);
}

fn shortened(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[..text.len().min(60)]).into_owned()
}

#[apply(on_both!)]
async fn hostile_bodies_are_refused_by_every_operation_that_takes_one(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let callers = callers(&app).await;
    let mut bodies: Vec<Vec<u8>> = vec![
        b"[".repeat(100_000),
        [b"[".repeat(100_000), b"]".repeat(100_000)].concat(),
        br#"{"a":"#.repeat(100_000),
        [br#"{"a":"#.repeat(100_000), b"1".to_vec(), b"}".repeat(100_000)].concat(),
        b"\xff\xfe\xfd".to_vec(),
        b"{\"name\": \"\xc3\x28\"}".to_vec(),
        b"\xef\xbb\xbf{}x".to_vec(),
        b"{\"a\": \"\xed\xa0\x80\"}".to_vec(),
        br#"{"a": "\ud800"}"#.to_vec(),
        br#"{"a": "\udc00\ud800"}"#.to_vec(),
        br#"{"a\u0000b": "\u0000"}"#.to_vec(),
        br#"{"a": 1e400}"#.to_vec(),
        br#"{"a": -1e999999999999}"#.to_vec(),
        br#"{"a": NaN}"#.to_vec(),
        b"null".to_vec(),
        b"\"text\"".to_vec(),
        b"99999999999999999999999999".to_vec(),
        b"{} {}".to_vec(),
        b"\0".to_vec(),
        [b"{\"a\": ".to_vec(), b"9".repeat(100_000), b"}".to_vec()].concat(),
    ];
    bodies.extend((0..8).map(|_| (0..200).map(|_| rand::random()).collect()));
    for operation in operations().iter().filter(|operation| operation.body.is_some()) {
        for body in &bodies {
            // An optional body may be null.
            let may_be_none = operation.path.ends_with("/rotate") && body == b"null";
            for call in operation.send(&callers, &operation.target()) {
                let call = call.header("Content-Type", operation.content_type());
                let answer = call.body(body.clone()).send().await;
                let what = format!("{} {} {}", operation.method, operation.path, shortened(body));
                assert_no_server_error(&answer, &what);
                if !may_be_none {
                    assert_client_error(&answer, &what);
                }
            }
        }
    }
    callers.are_still_known().await;
}

#[apply(on_both!)]
async fn hostile_fields_are_never_a_fault_of_the_server(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let callers = callers(&app).await;
    // JSON text, and whether a field can be valid with it.
    let values = [
        ("9223372036854775807", true),
        ("9223372036854775808", true),
        ("-9223372036854775808", true),
        ("-9223372036854775809", true),
        ("18446744073709551616", true),
        ("99999999999999999999999999999999999999999", true),
        ("-1", true),
        ("0", true),
        ("1e308", true),
        ("1e-400", true),
        ("1e400", false),
        ("0.1", true),
        ("true", true),
        ("null", true),
        ("[]", true),
        ("{}", true),
        ("[[[[[[[[]]]]]]]]", true),
        (r#""""#, true),
        (r#""a\u0000b""#, false),
        (r#""\ud800""#, false),
        (r#""\u202e\ufeff\uffff""#, true),
        (r#""0001-01-01T00:00:00Z""#, true),
        (r#""9999-12-31T23:59:59.999999999-23:59""#, true),
        (r#""-262143-01-01T00:00:00Z""#, true),
        (r#"{"\u0000": 1}"#, false),
        (r#"["\u0000"]"#, false),
    ];
    for operation in operations() {
        let Some((Value::Object(example), _)) = &operation.body else { continue };
        for field in example.keys() {
            for (value, may_be_fine) in values {
                let mut body = example.clone();
                body.insert(field.clone(), json!("the place"));
                let body = json!(body).to_string().replace("\"the place\"", value);
                // An earlier request may change or delete the target of the later ones.
                let target = operation.target();
                for call in operation.send(&callers, &target) {
                    let call = call.header("Content-Type", operation.content_type());
                    let answer = call.body(body.clone()).send().await;
                    let what = format!("{} {} {body}", operation.method, operation.path);
                    assert_no_server_error(&answer, &what);
                    if !may_be_fine {
                        assert_client_error(&answer, &what);
                    }
                }
            }
        }
    }
    callers.are_still_known().await;
}

/// Values of a parameter, as written in the request target.
const TEXTS: [&str; 24] = [
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775809",
    "99999999999999999999999999999999999",
    "-1",
    "0",
    "1e400",
    "1e308",
    "0x10",
    "1.5",
    "NaN",
    "%00",
    "a%00b",
    "%ff%fe",
    "%ED%A0%80",
    "%F4%90%80%80",
    "%zz",
    "%",
    "%22%20OR%201=1--",
    "%E2%80%AE",
    "+",
    "%0d%0aX-Evil:%201",
    "..%2f..%2fetc",
    "9999-12-31T23:59:59%2B23:59",
];

#[apply(on_both!)]
async fn hostile_paths_and_queries_are_never_a_fault_of_the_server(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let callers = callers(&app).await;
    let long = "9".repeat(8000);
    for operation in operations() {
        for text in TEXTS.into_iter().chain([long.as_str()]) {
            for parameter in &operation.parameters {
                let name = parameter["name"].as_str().unwrap();
                let target = match parameter["in"].as_str().unwrap() {
                    "path" => {
                        let filled = operation.path.replace(&format!("{{{name}}}"), text);
                        operation.with_path(filled).target()
                    }
                    "query" => format!("{}?{name}={text}", operation.target()),
                    _ => continue,
                };
                // Skips values that would sign out, delete or open a stream by chance.
                let is_path = parameter["in"] == "path";
                let is_safe = operation.method == Method::GET || is_path;
                if !is_safe || operation.path.ends_with("/events") && !is_path {
                    continue;
                }
                let number = &parameter["schema"]["type"];
                let is_number = number == "integer" || number[0] == "integer";
                for call in operation.send(&callers, &target) {
                    let answer = call.send().await;
                    let what = format!("{} {}", operation.method, &target[..target.len().min(200)]);
                    assert_no_server_error(&answer, &what);
                    if is_number && text.parse::<i64>().is_err() {
                        assert_client_error(&answer, &what);
                    }
                }
            }
        }
    }
    callers.are_still_known().await;
}

#[apply(on_both!)]
async fn hostile_header_fields_are_never_a_fault_of_the_server(backend: Backend) {
    let app = TestApp::with(
        &backend,
        &[
            ("RATE_LIMIT_ENABLED", "false"),
            ("TRUSTED_PROXIES", "127.0.0.1"),
            ("CORS_ALLOWED_ORIGINS", "https://example.com"),
        ],
    )
    .await;
    let callers = callers(&app).await;
    let long = vec![b'a'; 20_000];
    let values: [&[u8]; 12] = [
        b"",
        b"\xff\xfe",
        b"\xc3\x28",
        b"9223372036854775808",
        b"-1",
        b"\"",
        b"W/\"1\", \"9999999999999999999999\"",
        b"*",
        b",,,,",
        b"a\tb",
        b"text/html; charset=\xff",
        &long,
    ];
    let names = [
        "Authorization",
        "Octopus-API-Key",
        "X-Forwarded-For",
        "X-Request-Id",
        "If-Match",
        "If-None-Match",
        "Idempotency-Key",
        "Content-Type",
        "Accept-Encoding",
        "Last-Event-ID",
        "Origin",
        "Expect",
        "Cookie",
        "User-Agent",
        "Range",
        "Forwarded",
    ];
    let targets = [
        (Method::GET, "/api/v1/users"),
        (Method::PUT, "/api/v1/users/1"),
        (Method::PATCH, "/api/v1/conversations/1/messages/1"),
        (Method::POST, "/api/v1/api-keys"),
        (Method::POST, "/api/v1/users/login"),
        (Method::OPTIONS, "/api/v1/users"),
        (Method::GET, "/health"),
    ];
    for (method, target) in targets {
        for name in names {
            for value in values {
                let is_credential = name == "Octopus-API-Key" || name == "Authorization";
                let mut call = app.call(method.clone(), target);
                if !is_credential {
                    call = call.key(&callers.key);
                }
                if method != Method::GET && name != "Content-Type" {
                    call = call.header("Content-Type", "application/json");
                }
                let answer = call.header(name, value).body(r#"{"name": "x"}"#).send().await;
                assert_no_server_error(
                    &answer,
                    &format!("{method} {target} {name}: {}", shortened(value)),
                );
            }
        }
    }
    callers.are_still_known().await;
}

#[apply(on_both!)]
async fn hostile_heads_are_refused(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let with =
        |head: &str| format!("GET /health HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n").into_bytes();
    let posted = |head: &str, body: &str| {
        let request = "POST /api/v1/users HTTP/1.1\r\nHost: x\r\n";
        format!("{request}{head}\r\n\r\n{body}").into_bytes()
    };
    let many = |n: usize| (0..n).map(|n| format!("X-{n}: 1")).collect::<Vec<_>>().join("\r\n");
    for (what, head) in [
        ("101 fields", with(&many(101))),
        ("10,000 fields", with(&many(10_000))),
        ("a field of 40 kB", with(&format!("X-A: {}", "a".repeat(40_000)))),
        ("a field of 10 MB", with(&format!("X-A: {}", "a".repeat(10_000_000)))),
        (
            "a target of 40 kB",
            format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(40_000)).into(),
        ),
        (
            "a target of 10 MB",
            format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(10_000_000)).into(),
        ),
        ("a name with a space", with("X A: 1")),
        ("a name with a NUL", with("X\0A: 1")),
        ("a value with a NUL", with("X-A: a\0b")),
        ("no name", with(": 1")),
        ("an unknown method", b"G\x00T / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("invalid UTF-8 in the target", b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("an unknown version", b"GET / HTTP/9.9\r\nHost: x\r\n\r\n".to_vec()),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec()),
        ("a length below nothing", posted("Content-Length: -1", "")),
        ("a length beyond everything", posted("Content-Length: 99999999999999999999999", "")),
        ("two lengths", posted("Content-Length: 1\r\nContent-Length: 2", "{}")),
        (
            "a length and chunks",
            posted("Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
        ),
        ("an unknown encoding", posted("Transfer-Encoding: rot13", "{}")),
        (
            "a chunk beyond everything",
            posted("Transfer-Encoding: chunked", "FFFFFFFFFFFFFFFFF\r\n"),
        ),
        ("a chunk of no size", posted("Transfer-Encoding: chunked", "xyz\r\n")),
    ] {
        let (mut reading, mut writing) =
            TcpStream::connect(app.address).await.unwrap().into_split();
        let mut answer = vec![0; 12];
        let sending = async {
            // The server may refuse before the client has sent everything.
            let _ = writing.write_all(&head).await;
            std::future::pending::<()>().await;
        };
        let answered = async {
            tokio::select! {
                () = sending => unreachable!(),
                read = reading.read_exact(&mut answer) => read.map(drop),
            }
        };
        let answered = timeout(Duration::from_secs(20), answered).await;
        answered
            .unwrap_or_else(|_| panic!("{what}: no answer"))
            .unwrap_or_else(|e| panic!("{what}: {e}"));
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 4"), "{what}: {answer}");
    }
    app.get("/health").send().await.expect(200);
}
