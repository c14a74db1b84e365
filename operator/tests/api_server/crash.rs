//! Clients that count writes, and clients that die after some.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use kube::{Client, client::Body};
use tonic::codegen::{
    Service,
    http::{Method, Request, Response},
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a client has done, and how much it still may.
#[derive(Default)]
pub(crate) struct Ledger {
    /// Writes that reached the API server, events aside.
    pub writes: AtomicUsize,
    /// What they were, for the message of a test that expected none.
    pub written: Mutex<Vec<String>>,
    limit: Option<usize>,
    /// True once the limit was reached: nothing gets through any more.
    pub crashed: AtomicBool,
}

/// A client whose writes are counted.
pub(crate) fn counting(client: Client) -> (Client, Arc<Ledger>) {
    wrap(client, None)
}

/// A client that dies after this many writes: the last one reaches the API server, but its answer is lost.
pub(crate) fn crashing(client: Client, writes: usize) -> (Client, Arc<Ledger>) {
    wrap(client, Some(writes))
}

fn wrap(client: Client, limit: Option<usize>) -> (Client, Arc<Ledger>) {
    let ledger = Arc::new(Ledger { limit, ..Ledger::default() });
    let service = Counted { inner: client, ledger: Arc::clone(&ledger) };
    (Client::new(service, "default"), ledger)
}

struct Counted {
    inner: Client,
    ledger: Arc<Ledger>,
}

impl Service<Request<Body>> for Counted {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let ledger = Arc::clone(&self.ledger);
        let dead = || -> BoxError { std::io::Error::from(std::io::ErrorKind::ConnectionReset).into() };
        if ledger.crashed.load(Ordering::SeqCst) {
            return Box::pin(async move { Err(dead()) });
        }
        let counts = request.method() != Method::GET && !request.uri().path().contains("/events");
        let mut last = false;
        if counts {
            let what = format!("{} {}", request.method(), request.uri().path());
            ledger.written.lock().unwrap().push(what);
            let number = ledger.writes.fetch_add(1, Ordering::SeqCst) + 1;
            last = ledger.limit == Some(number);
            if last {
                ledger.crashed.store(true, Ordering::SeqCst);
            }
        }
        let inner = self.inner.clone();
        Box::pin(async move {
            let answer = inner.send(request).await;
            if last { Err(dead()) } else { answer.map_err(Into::into) }
        })
    }
}
