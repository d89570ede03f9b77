//! The routes.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use diolkos_engine::Command;
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;

use crate::{Observer, RegistryStatus, ServiceStatus};

/// Gives the metrics as OpenMetrics text.
pub type Encode = Arc<dyn Fn() -> String + Send + Sync>;

#[derive(Clone)]
struct App {
    observer: Observer,
    metrics: Encode,
    commands: mpsc::Sender<Command>,
}

/// Serves the API until `cancel` fires. What it is told to do goes to the engine by `commands`.
///
/// # Errors
/// If accepting connections fails for good.
pub async fn serve(
    listener: TcpListener,
    observer: Observer,
    metrics: Encode,
    commands: mpsc::Sender<Command>,
    cancel: CancellationToken,
) -> std::io::Result<()> {
    let app = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(encode))
        .route("/api/v1/registries", get(registries))
        .route("/api/v1/registries/{name}/release", post(release))
        .route("/api/v1/services", get(services))
        .route("/api/v1/explain", get(explain))
        .with_state(App {
            observer,
            metrics,
            commands,
        });
    axum::serve(listener, app)
        .with_graceful_shutdown(async move { cancel.cancelled().await })
        .await
}

async fn readyz(State(app): State<App>) -> Response {
    match app.observer.ready() {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn encode(State(app): State<App>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], (app.metrics)()).into_response()
}

async fn registries(State(app): State<App>) -> Json<Vec<RegistryStatus>> {
    Json(app.observer.registries())
}

/// Lets the removals pass that are held back of a registry. Answers with what was held.
async fn release(State(app): State<App>, Path(name): Path<String>) -> Response {
    let Some(registry) = app.observer.registry(&name) else {
        let error =
            format!("there is no registry '{name}'; /api/v1/registries lists all registries");
        return failed(StatusCode::NOT_FOUND, &error);
    };
    let command = Command::Release(name.into());
    if let Err(error) = app.commands.send(command).await {
        return failed(StatusCode::SERVICE_UNAVAILABLE, &error.to_string());
    }
    let released = Released {
        services: registry.held_services,
        instances: registry.held_instances,
    };
    (StatusCode::ACCEPTED, Json(released)).into_response()
}

/// What was held back of a registry when it was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// Services that lose something, or everything.
    pub services: usize,
    /// Instances.
    pub instances: usize,
}

#[derive(Deserialize)]
struct Filter {
    registry: Option<String>,
    host: Option<String>,
}

async fn services(
    State(app): State<App>,
    Query(filter): Query<Filter>,
) -> Json<Vec<ServiceStatus>> {
    Json(
        app.observer
            .services(filter.registry.as_deref(), filter.host.as_deref()),
    )
}

#[derive(Deserialize)]
struct Wanted {
    host: Option<String>,
}

async fn explain(State(app): State<App>, Query(wanted): Query<Wanted>) -> Response {
    let Some(host) = wanted.host.filter(|host| !host.is_empty()) else {
        let error = "the parameter host is missing: /api/v1/explain?host=HOST, where HOST is a host, a service, an object, an instance id or an address";
        return failed(StatusCode::BAD_REQUEST, error);
    };
    match app.observer.explain(&host) {
        Ok(found) if found.is_empty() => failed(
            StatusCode::NOT_FOUND,
            &format!(
                "no registry has anything by the name '{host}'; /api/v1/services lists all services"
            ),
        ),
        Ok(found) => Json(found).into_response(),
        Err(error) => failed(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn failed(status: StatusCode, error: &str) -> Response {
    (status, Json(serde_json::json!({ "error": error }))).into_response()
}
