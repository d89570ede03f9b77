//! The HTTP port of the stub.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;

use axum::Router;
use axum::extract::{Query, State as Held};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::state::{Name, Shared, State, name};
use super::{Asked, Version};
use crate::lock;

type Parameters = BTreeMap<String, String>;

/// An answer: its status and its JSON.
type Answer = (u16, Value);

/// Accepts until aborted.
pub(super) async fn serve(listener: TcpListener, shared: Shared) {
    let router = Router::new().fallback(handle).with_state(shared);
    // `serve` retries failed accepts itself and never returns an error.
    axum::serve(listener, router).await.ok();
}

async fn handle(
    Held(shared): Held<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: String,
) -> Response {
    let path = uri.path().strip_prefix("/nacos").unwrap_or_default();
    let mut parameters = parameters(&uri);
    // A form is read as a query.
    if let Ok(form) = format!("/?{body}").parse() {
        parameters.extend(self::parameters(&form));
    }
    let bearer = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok());
    if let Some(token) = bearer.and_then(|v| v.strip_prefix("Bearer ")) {
        parameters.insert("accessToken".to_owned(), token.to_owned());
    }
    let ((status, answer), silent) = {
        let mut state = lock(&shared.state);
        let asked = Asked::new(0, path, json!(parameters), BTreeMap::new());
        state.asked.push(asked);
        let silent = state.faults.silent.contains(path);
        (respond(&mut state, &method, path, &parameters), silent)
    };
    if silent {
        pending::<()>().await;
    }
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = [("content-type", "application/json;charset=UTF-8")];
    let answer = match answer {
        Value::String(text) => text,
        json => json.to_string(),
    };
    (status, json, answer).into_response()
}

fn parameters(uri: &Uri) -> Parameters {
    // What cannot be read is not there.
    Query::try_from_uri(uri).map_or_else(|_| Parameters::new(), |Query(all)| all)
}

fn error(status: u16, message: &str, path: &str) -> Answer {
    let body = json!({
        "timestamp": "2026-11-21T09:20:37.951+00:00", "status": status, "error": "error",
        "message": message, "path": format!("/nacos{path}"),
    });
    (status, body)
}

fn respond(state: &mut State, method: &Method, path: &str, parameters: &Parameters) -> Answer {
    let text = |key: &str| parameters.get(key).map_or("", String::as_str);
    if *method == Method::POST && path.ends_with("/login") {
        return log_in(state, path, text("username"), text("password"));
    }
    if !state.lets_in(parameters.get("accessToken").map(String::as_str)) {
        return error(403, "user not found!", path);
    }
    let asks = Asks {
        state,
        path,
        parameters,
    };
    match (path, asks.state.version) {
        ("/v1/ns/service/list", _) => asks.list(),
        ("/v1/ns/instance/list", _) => asks.instances(),
        ("/v1/cs/configs", Version::V1 | Version::V2) => asks.configs(),
        ("/v1/ns/catalog/services", Version::V1 | Version::V2) => asks.catalog(),
        ("/v1/ns/catalog/service", Version::V1 | Version::V2) => asks.clusters(),
        ("/v1/ns/catalog/instances", Version::V1 | Version::V2) => asks.true_instances(),
        ("/v3/admin/ns/service/list", Version::V3) => asks.catalog(),
        ("/v3/admin/ns/instance/list", Version::V3) => asks.true_instances(),
        ("/v3/client/ns/instance/list", Version::V3) => asks.client_instances(),
        (_, Version::V3) if path.starts_with("/v1/") || path.starts_with("/v2/") => {
            error(410, "Current API will be deprecated", path)
        }
        _ => error(404, "No message available", path),
    }
}

fn log_in(state: &mut State, path: &str, username: &str, password: &str) -> Answer {
    let Some(token) = state.log_in(username, password) else {
        return error(403, "unknown user!", path);
    };
    let ttl = state.faults.token_ttl.as_secs();
    (
        200,
        json!({"accessToken": token, "tokenTtl": ttl, "globalAdmin": true, "username": username}),
    )
}

/// A request of somebody who may ask.
struct Asks<'a> {
    state: &'a mut State,
    path: &'a str,
    parameters: &'a Parameters,
}

impl Asks<'_> {
    fn text(&self, key: &str) -> &str {
        self.parameters.get(key).map_or("", String::as_str)
    }

    fn number(&self, key: &str) -> usize {
        self.text(key).parse().unwrap_or_default()
    }

    /// The name, with its group in it or beside it.
    fn name(&self) -> Name {
        let (group, service) = name(self.text("serviceName"));
        match self.text("groupName") {
            "" => (group, service),
            group => (group.to_owned(), service),
        }
    }

    fn page(&mut self, group: Option<&str>) -> Result<(usize, Vec<Name>), Answer> {
        if let Some(code) = self.state.faults.refused_lists {
            return Err(error(code, "it is so", self.path));
        }
        let (page, size) = (self.number("pageNo"), self.number("pageSize"));
        Ok(self.state.page(group, page, size))
    }

    fn refused(&self) -> Option<Answer> {
        let (group, service) = self.name();
        let refused = &self.state.faults.refused;
        let code = refused.get(&format!("{group}@@{service}"))?;
        Some(error(*code, "it is so", self.path))
    }

    fn list(mut self) -> Answer {
        let group = match self.text("groupName") {
            "" => "DEFAULT_GROUP",
            group => group,
        };
        let group = group.to_owned();
        match self.page(Some(&group)) {
            Ok((count, names)) => {
                let doms: Vec<String> = names.into_iter().map(|(_, service)| service).collect();
                (200, json!({"count": count, "doms": doms}))
            }
            Err(refused) => refused,
        }
    }

    fn catalog(mut self) -> Answer {
        let (count, names) = match self.page(None) {
            Ok(page) => page,
            Err(refused) => return refused,
        };
        let entry = |(group, service): &Name| {
            json!({
                "name": service, "groupName": group, "clusterCount": 1, "ipCount": 1,
                "healthyInstanceCount": 1, "triggerFlag": "false",
            })
        };
        let entries: Vec<Value> = names.iter().map(entry).collect();
        let answer = match self.state.version {
            Version::V3 => data(&json!({
                "totalCount": count, "pageNumber": self.number("pageNo"), "pagesAvailable": 1,
                "pageItems": entries,
            })),
            Version::V1 | Version::V2 => json!({"count": count, "serviceList": entries}),
        };
        (200, answer)
    }

    fn instances(self) -> Answer {
        if let Some(refused) = self.refused() {
            return refused;
        }
        let name = self.name();
        let mut info = self.state.info(&name);
        info["name"] = json!(format!("{}@@{}", name.0, name.1));
        (200, info)
    }

    /// Details of a service, of which only the clusters' names are of use.
    fn clusters(self) -> Answer {
        if let Some(refused) = self.refused() {
            return refused;
        }
        let Some(service) = self.state.services.get(&self.name()) else {
            return (404, json!("caused: service is not found!;"));
        };
        let names: BTreeSet<&str> = service.hosts.iter().map(|host| &*host.cluster).collect();
        let clusters: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        (200, json!({"service": {}, "clusters": clusters}))
    }

    /// The instances of a cluster, or of all.
    fn true_instances(self) -> Answer {
        if let Some(refused) = self.refused() {
            return refused;
        }
        let name = self.name();
        let cluster = self.parameters.get("clusterName");
        let service = self.state.services.get(&name);
        let hosts: Vec<Value> = service
            .into_iter()
            .flat_map(|service| &service.hosts)
            .filter(|host| cluster.is_none_or(|cluster| host.cluster == *cluster))
            .map(|host| host.truth(&name.0, &name.1))
            .collect();
        let answer = match self.state.version {
            // As the documentation of Nacos 3 has it; it was not recorded.
            Version::V3 => data(&json!(hosts)),
            Version::V1 | Version::V2 => json!({"count": hosts.len(), "list": hosts}),
        };
        (200, answer)
    }

    /// The instances alone.
    fn client_instances(self) -> Answer {
        let (status, info) = self.instances();
        match info.get("hosts") {
            Some(hosts) => (status, data(hosts)),
            None => (status, info),
        }
    }

    fn configs(self) -> Answer {
        let pattern = self.text("dataId").replace('*', "");
        let group = self.text("group");
        let matches =
            |((of, id), _): &(&(String, String), &String)| of == group && id.contains(&pattern);
        let found = self.state.configs.iter().filter(matches);
        let items: Vec<Value> = found
            .map(|((group, id), content)| json!({"dataId": id, "group": group, "content": content}))
            .collect();
        (
            200,
            json!({
                "totalCount": items.len(), "pageNumber": 1, "pagesAvailable": 1, "pageItems": items,
            }),
        )
    }
}

fn data(data: &Value) -> Value {
    json!({"code": 0, "message": "success", "data": data})
}
