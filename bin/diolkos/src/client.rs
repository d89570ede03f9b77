//! Asks a running Diolkos.

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;

/// Gets `path` of the API at `server`. `None` is an answer of 404.
pub(crate) async fn get<T: DeserializeOwned>(
    server: &str,
    path: &str,
    query: &[(&str, &str)],
) -> anyhow::Result<Option<T>> {
    ask(server, path, |client, url| client.get(url).query(query)).await
}

/// Posts to `path` of the API at `server`. `None` is an answer of 404.
pub(crate) async fn post<T: DeserializeOwned>(
    server: &str,
    path: &str,
) -> anyhow::Result<Option<T>> {
    ask(server, path, |client, url| client.post(url)).await
}

async fn ask<T: DeserializeOwned>(
    server: &str,
    path: &str,
    request: impl FnOnce(&reqwest::Client, &str) -> reqwest::RequestBuilder,
) -> anyhow::Result<Option<T>> {
    let url = format!("{}{path}", server.trim_end_matches('/'));
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(std::time::Duration::from_secs(30))
        .build()?;
    let answer = request(&client, &url).send().await.with_context(|| {
        format!(
            "no Diolkos answers at {server}; start one with `diolkos run`, or name it with --server"
        )
    })?;
    let status = answer.status();
    if status == reqwest::StatusCode::NOT_FOUND {
        return Ok(None);
    }
    let body = answer
        .bytes()
        .await
        .with_context(|| format!("reading {url}"))?;
    if !status.is_success() {
        bail!(
            "{url} answers {status}: {}",
            String::from_utf8_lossy(&body).trim()
        );
    }
    serde_json::from_slice(&body)
        .map(Some)
        .with_context(|| format!("{url} does not answer as Diolkos does"))
}
