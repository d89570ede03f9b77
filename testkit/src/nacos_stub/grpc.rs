//! The gRPC port of the stub.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;

use axum::http::{Request, Response};
use futures::StreamExt;
use futures::stream;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tonic::body::Body;
use tonic::server::Grpc;
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

use super::state::{Link, Name, Shared, State};
use super::wire::Payload;
use super::{Asked, Version};
use crate::lock;

/// The most pushes that wait for a client: more than tests make.
const PUSHES: usize = 100_000;
/// The most names in a message.
const NAMES: usize = 10;

/// Accepts until aborted.
pub(super) async fn serve(listener: TcpListener, shared: Shared) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                connections.spawn(connection(stream, shared.clone()));
            }
            Some(_) = connections.join_next() => {}
            else => return,
        }
    }
}

/// A connection is a client: what it subscribed goes with it.
async fn connection(stream: TcpStream, shared: Shared) {
    let mut cuts = shared.cuts.subscribe();
    let before = *cuts.borrow_and_update();
    let id = {
        let mut state = lock(&shared.state);
        state.connections += 1;
        let id = state.connections;
        state.links.insert(id, Link::default());
        id
    };
    let served = shared.clone();
    let service = service_fn(move |request| Box::pin(call(served.clone(), id, request)));
    let http =
        http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // An error is the end of this connection, on either side; clients see it themselves.
        _ = http => {}
        _ = cuts.wait_for(|cuts| *cuts != before) => {}
    }
    lock(&shared.state).links.remove(&id);
}

async fn call(
    shared: Shared,
    id: u64,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let mut grpc = Grpc::new(ProstCodec::<Payload, Payload>::default());
    Ok(match request.uri().path() {
        "/Request/request" => {
            let service = tower::service_fn(|request: tonic::Request<Payload>| {
                let shared = shared.clone();
                async move {
                    let answer = answer(&shared, id, request.into_inner()).await;
                    Ok::<_, Status>(tonic::Response::new(answer))
                }
            });
            grpc.unary(service, request).await
        }
        "/BiRequestStream/requestBiStream" => {
            let service = tower::service_fn(|request: tonic::Request<Streaming<Payload>>| {
                let (out, mut pushes) = mpsc::channel(PUSHES);
                tokio::spawn(listen(shared.clone(), id, request.into_inner(), out));
                let pushes = stream::poll_fn(move |cx| pushes.poll_recv(cx)).map(Ok);
                async move { Ok::<_, Status>(tonic::Response::new(pushes)) }
            });
            grpc.streaming(service, request).await
        }
        _ => Status::unimplemented("no such method").into_http(),
    })
}

/// Reads what the client says on the stream of pushes.
async fn listen(
    shared: Shared,
    id: u64,
    mut incoming: Streaming<Payload>,
    out: mpsc::Sender<Payload>,
) {
    let mut out = Some(out);
    while let Ok(Some(payload)) = incoming.message().await {
        let (kind, headers, body) = payload.open();
        let silent = {
            let mut state = lock(&shared.state);
            let silent = state.faults.silent.contains(&*kind);
            state
                .asked
                .push(Asked::new(id, &kind, body.clone(), headers));
            silent
        };
        match &*kind {
            "ConnectionSetupRequest" if silent => {}
            "ConnectionSetupRequest" => {
                if let Some(out) = out.take() {
                    tokio::spawn(set_up(shared.clone(), id, out));
                }
            }
            _ => {
                if let Some(request_id) = body["requestId"].as_str() {
                    let mut state = lock(&shared.state);
                    state.acknowledged.push(request_id.to_owned());
                }
            }
        }
    }
}

/// From now on the connection may ask. Nacos 3 says so.
async fn set_up(shared: Shared, id: u64, out: mpsc::Sender<Payload>) {
    let late = lock(&shared.state).faults.late_setup;
    sleep(late).await;
    let mut state = lock(&shared.state);
    let speaks = state.version == Version::V3 && !state.faults.silent.contains("SetupAckRequest");
    let Some(link) = state.links.get_mut(&id) else {
        return;
    };
    if speaks {
        let abilities = json!({
            "supportPersistentInstanceByGrpc": true, "fuzzyWatch": true, "lock": true, "mcp": true,
        });
        let body = json!({"headers": {}, "abilityTable": abilities, "module": "internal"});
        // It fails if the client has gone.
        out.try_send(Payload::new("SetupAckRequest", &body)).ok();
    }
    link.pushes = Some(out);
}

/// The answer to a request. It may never come.
async fn answer(shared: &Shared, id: u64, payload: Payload) -> Payload {
    let (kind, headers, body) = payload.open();
    let (silent, answer) = {
        let mut state = lock(&shared.state);
        let asked = Asked::new(id, &kind, body.clone(), headers.clone());
        state.asked.push(asked);
        let token = headers.get("accessToken");
        let answer = respond(&mut state, id, &kind, &body, token.map(String::as_str));
        (state.faults.silent.contains(&kind), answer)
    };
    if silent {
        pending::<()>().await;
    }
    if kind == "NamingFuzzyWatchRequest" {
        tokio::spawn(first_names(Arc::clone(shared), id));
    }
    let (kind, body) = answer;
    Payload::new(&kind, &body)
}

fn error(code: u16, message: &str) -> Value {
    json!({"resultCode": 500, "errorCode": code, "message": message, "success": false})
}

fn respond(
    state: &mut State,
    id: u64,
    kind: &str,
    body: &Value,
    token: Option<&str>,
) -> (String, Value) {
    let of = |kind: &str| kind.replace("Request", "Response");
    if kind == "ServerCheckRequest" {
        return (of(kind), server_check(state, id));
    }
    let is_set_up = state.links.get(&id).is_some_and(|l| l.pushes.is_some());
    if !is_set_up {
        let unknown = error(301, "Connection is unregistered.");
        return ("ErrorResponse".to_owned(), unknown);
    }
    if kind == "HealthCheckRequest" {
        let fine = json!({"resultCode": 200, "errorCode": 0, "success": true});
        return (of(kind), fine);
    }
    if !state.lets_in(token) {
        return (of(kind), error(403, "user not found!"));
    }
    let known = Known { state, id, body };
    match kind {
        "ServiceListRequest" => (of(kind), known.list()),
        "SubscribeServiceRequest" => (of(kind), known.subscribe()),
        "ServiceQueryRequest" => ("QueryServiceResponse".to_owned(), known.query()),
        "NamingFuzzyWatchRequest" if known.state.version == Version::V3 => {
            (of(kind), known.fuzzy_watch())
        }
        "ConfigQueryRequest" => (of(kind), known.config()),
        _ => ("ErrorResponse".to_owned(), error(302, "no handler")),
    }
}

fn server_check(state: &mut State, id: u64) -> Value {
    let time = state.tick();
    let mut answer = json!({
        "resultCode": 200, "errorCode": 0, "connectionId": format!("{time}_127.0.0.1_{id}"),
        "success": true,
    });
    if state.version == Version::V3 {
        answer["supportAbilityNegotiation"] = json!(true);
    }
    answer
}

/// A request of a connection that is set up, by somebody who may ask.
struct Known<'a> {
    state: &'a mut State,
    id: u64,
    body: &'a Value,
}

impl Known<'_> {
    fn text(&self, key: &str) -> &str {
        self.body[key].as_str().unwrap_or_default()
    }

    fn name(&self) -> Name {
        (
            self.text("groupName").to_owned(),
            self.text("serviceName").to_owned(),
        )
    }

    fn refused(&self) -> Option<Value> {
        let (group, service) = self.name();
        let refused = &self.state.faults.refused;
        let code = refused.get(&format!("{group}@@{service}"))?;
        Some(error(*code, "it is so"))
    }

    fn list(self) -> Value {
        if let Some(code) = self.state.faults.refused_lists {
            return error(code, "it is so");
        }
        let number = |key: &str| {
            let number = self.body[key].as_u64().unwrap_or_default();
            usize::try_from(number).unwrap_or_default()
        };
        let (page, size) = (number("pageNo"), number("pageSize"));
        let group = self.text("groupName").to_owned();
        let (count, names) = self.state.page(Some(&group), page, size);
        let names: Vec<String> = names.into_iter().map(|(_, service)| service).collect();
        json!({"resultCode": 200, "errorCode": 0, "count": count, "serviceNames": names, "success": true})
    }

    fn subscribe(self) -> Value {
        if let Some(refused) = self.refused() {
            return refused;
        }
        let name = self.name();
        let subscribes = self.body["subscribe"] == true;
        if let Some(link) = self.state.links.get_mut(&self.id) {
            if subscribes {
                link.subscribed.insert(name.clone());
            } else {
                link.subscribed.remove(&name);
            }
        }
        let info = self.state.info(&name);
        json!({"resultCode": 200, "errorCode": 0, "message": "success", "serviceInfo": info, "success": true})
    }

    fn query(self) -> Value {
        if let Some(refused) = self.refused() {
            return refused;
        }
        let info = self.state.info(&self.name());
        json!({"resultCode": 200, "errorCode": 0, "serviceInfo": info, "success": true})
    }

    fn fuzzy_watch(self) -> Value {
        if let Some(link) = self.state.links.get_mut(&self.id) {
            link.watches = true;
        }
        json!({"resultCode": 200, "errorCode": 0, "success": true})
    }

    fn config(self) -> Value {
        let key = (
            self.text("group").to_owned(),
            self.text("dataId").to_owned(),
        );
        match self.state.configs.get(&key) {
            Some(content) => json!({
                "resultCode": 200, "errorCode": 0, "content": content, "contentType": "text",
                "success": true,
            }),
            None => error(300, "config data not exist"),
        }
    }
}

/// After a fuzzy watch began: the names that there are, and that these are all.
async fn first_names(shared: Shared, id: u64) {
    let mut state = lock(&shared.state);
    let keys = state.services.keys();
    let contexts: Vec<Value> = keys
        .map(|(group, service)| {
            json!({"serviceKey": format!("public@@{group}@@{service}"), "changedType": "ADD_SERVICE"})
        })
        .collect();
    let batches = contexts.len().div_ceil(NAMES);
    let mut sync = |kind: &str, contexts: &[Value], all: usize, number: usize| {
        let body = json!({
            "syncType": kind, "groupKeyPattern": "public>>*>>*", "contexts": contexts,
            "totalBatch": all, "currentBatch": number, "module": "naming",
        });
        state.send(id, "NamingFuzzyWatchSyncRequest", body);
    };
    for (number, batch) in contexts.chunks(NAMES).enumerate() {
        sync("FUZZY_WATCH_INIT_NOTIFY", batch, batches, number + 1);
    }
    sync("FINISH_FUZZY_WATCH_INIT_NOTIFY", &[], 1, 1);
}
