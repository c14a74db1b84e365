//! The operator's only way to the API server. Notes what goes through, and does to it what the plan says.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use axum::body::{Body as Answer, BodyDataStream, Bytes};
use futures::{StreamExt as _, future::BoxFuture, stream};
use kube::{Client, client::Body};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Notify;
use tonic::codegen::{
    Service,
    http::{Method, Request, Response, Uri},
};

use crate::{
    plan::Mode,
    run::{Acknowledged, DELAY, Run, Verdict, Write},
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The world as it was.
#[derive(Clone)]
pub(crate) struct Former {
    pub version: String,
    pub until: Instant,
}

/// The way of one operator.
pub(crate) struct Proxy {
    run: Arc<Run>,
    server: Client,
    former: Option<Former>,
    is_dead: AtomicBool,
    pub died: Notify,
    acknowledged: Acknowledged,
}

impl Proxy {
    pub(crate) fn new(run: &Arc<Run>, server: Client, former: Option<Former>) -> Arc<Self> {
        let run = Arc::clone(run);
        let (is_dead, died, acknowledged) = (AtomicBool::new(false), Notify::new(), Acknowledged::default());
        Arc::new(Self { run, server, former, is_dead, died, acknowledged })
    }

    /// What the operator is given.
    pub(crate) fn client(self: &Arc<Self>) -> Client {
        Client::new(Way(Arc::clone(self)), "default")
    }

    /// From now on nothing gets through.
    fn die(&self) {
        self.is_dead.store(true, Ordering::SeqCst);
        self.died.notify_one();
    }

    async fn pass(self: Arc<Self>, request: Request<Body>) -> Result<Response<Answer>, BoxError> {
        if self.is_dead.load(Ordering::SeqCst) {
            return std::future::pending().await;
        }
        if *request.method() == Method::GET {
            return self.read(request).await;
        }
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await?;
        let write = Write::of(&parts.method, parts.uri.path(), &parts.headers, &body);
        let request = Request::from_parts(parts, Body::from(body));
        match write {
            Some(write) => self.write(write, request).await,
            None => Ok(self.server.send(request).await?.map(Answer::new)),
        }
    }

    async fn write(self: Arc<Self>, write: Write, request: Request<Body>) -> Result<Response<Answer>, BoxError> {
        let verdict = self.run.begin(&write);
        match verdict {
            Verdict::Hit(Mode::Unsent) => {
                self.die();
                return std::future::pending().await;
            }
            Verdict::Hit(Mode::Refused) => return Err(broken()),
            Verdict::Hit(Mode::Lost) => self.die(),
            Verdict::Hit(Mode::Rewound) => {
                let version = self.run.version().await?;
                self.run.seen().version_at_hit = version;
            }
            _ => {}
        }
        self.run.judge(&write).await;
        // What is on its way arrives, also if the operator dies meanwhile.
        let this = Arc::clone(&self);
        let sent = tokio::spawn(async move {
            let answer = this.server.send(request).await?;
            let (parts, body) = answer.into_parts();
            let body = body.collect_bytes().await?;
            this.run.settle(&write, parts.status);
            Ok::<_, kube::Error>((write, parts, body))
        });
        let answer = sent.await?;
        match verdict {
            Verdict::Hit(Mode::Lost) => return std::future::pending().await,
            Verdict::Hit(Mode::Cut) => return Err(broken()),
            Verdict::Hit(mode) if mode.kills() => self.die(),
            _ => {}
        }
        let (write, parts, body) = answer?;
        self.acknowledged.note(&self.run, &write, parts.status, &body);
        Ok(Response::from_parts(parts, Answer::from(body)))
    }

    async fn read(self: Arc<Self>, mut request: Request<Body>) -> Result<Response<Answer>, BoxError> {
        let path = request.uri().path().to_owned();
        let query = request.uri().query().unwrap_or_default().to_owned();
        let has = |parameter: &str| query.split('&').any(|pair| pair.starts_with(parameter));
        let is_watch = has("watch=");
        // Only what fills caches can be behind: a read without a version is answered from what is agreed.
        if let Some(former) = self.former.as_ref().filter(|former| Instant::now() < former.until) {
            if has("sendInitialEvents=") {
                return Ok(refusal());
            }
            if is_watch {
                tokio::time::sleep_until(former.until.into()).await;
            } else if has("limit=") {
                let uri = format!("{path}?{query}&resourceVersion={}&resourceVersionMatch=Exact", former.version);
                *request.uri_mut() = uri.parse::<Uri>()?;
            }
        }
        let answer = self.server.send(request).await?.map(Answer::new);
        if !is_watch || !answer.status().is_success() {
            return Ok(answer);
        }
        let plural = path.rsplit('/').next().unwrap_or_default().to_owned();
        let run = Arc::clone(&self.run);
        Ok(answer.map(|body| Watch::new(run, plural, body.into_data_stream()).into_body()))
    }
}

fn broken() -> BoxError {
    std::io::Error::from(std::io::ErrorKind::ConnectionReset).into()
}

/// An API server that cannot stream lists.
fn refusal() -> Response<Answer> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Invalid", "code": 422});
    let answer = Response::builder().status(422).header("content-type", "application/json");
    answer.body(Answer::from(status.to_string())).unwrap()
}

struct Way(Arc<Proxy>);

impl Service<Request<Body>> for Way {
    type Response = Response<Answer>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(Arc::clone(&self.0).pass(request))
    }
}

/// A line of a watch.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    type_: String,
    object: Told,
}

#[derive(Deserialize)]
struct Told {
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    name: String,
}

/// A watch on its way to the operator.
struct Watch {
    run: Arc<Run>,
    plural: String,
    stream: BodyDataStream,
    received: Vec<u8>,
    lists_anew_at: Option<Instant>,
    has_ended: bool,
}

impl Watch {
    fn new(run: Arc<Run>, plural: String, stream: BodyDataStream) -> Self {
        Self { run, plural, stream, received: Vec::new(), lists_anew_at: None, has_ended: false }
    }

    fn into_body(self) -> Answer {
        Answer::from_stream(stream::unfold(self, |mut watch| async move { Some((watch.next().await?, watch)) }))
    }

    async fn next(&mut self) -> Option<Result<Bytes, axum::Error>> {
        loop {
            if self.has_ended {
                return None;
            }
            if let Some(line) = self.line() {
                if self.tells(&line) {
                    while let Some(until) = self.run.held_until(&self.plural) {
                        tokio::time::sleep_until(until.into()).await;
                    }
                    return Some(Ok(Bytes::from(line)));
                }
                self.lists_anew_at.get_or_insert_with(|| Instant::now() + DELAY);
                continue;
            }
            let lists_anew_at = self.lists_anew_at;
            let expired = async {
                match lists_anew_at {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                chunk = self.stream.next() => match chunk {
                    Some(Ok(chunk)) => self.received.extend_from_slice(&chunk),
                    Some(Err(error)) => {
                        self.has_ended = true;
                        return Some(Err(error));
                    }
                    None => self.has_ended = true,
                },
                () = expired => {
                    self.has_ended = true;
                    self.run.relisted();
                    let gone = json!({"type": "ERROR", "object": {
                        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410,
                        "message": "too old resource version",
                    }});
                    return Some(Ok(Bytes::from(format!("{gone}\n"))));
                }
            }
        }
    }

    fn line(&mut self) -> Option<Vec<u8>> {
        let end = self.received.iter().position(|byte| *byte == b'\n')?;
        Some(self.received.drain(..=end).collect())
    }

    fn tells(&self, line: &[u8]) -> bool {
        let Ok(Line { type_, object }) = serde_json::from_slice::<Line>(line) else { return true };
        if !matches!(type_.as_str(), "ADDED" | "MODIFIED" | "DELETED") {
            return true;
        }
        let place = format!("{}/{}", self.plural, object.metadata.name);
        self.run.tell(&format!("{type_} {place}"), &place)
    }
}
