//! The HTTP API of one server.
//!
//! Paths of v1 are asked first: Nacos 1 and 2 have them, and 3 has some. Where a server has not,
//! that of v3 is asked, and first from then on.

use std::sync::{Arc, atomic::Ordering};

use diolkos_net::{Answer, Bytes, HeaderName, HeaderValue, HttpError, Request, StatusCode};

use crate::{
    Client, ConfigItem, DEADLINE, Error, Host, Name, Page, ServiceInfo,
    auth::{Proof, Subject},
    connection::tenant,
    json::{self, RawItem},
};

/// Instances of a cluster that are asked for at once: all. A list that is read in pages may change
/// between them.
const ALL: u32 = 1_000_000;

/// The HTTP API of one server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Http {
    client: Client,
    server: usize,
}

/// What is asked for, in all versions.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Endpoint {
    List,
    Catalog,
    Instances,
    TrueInstances,
    Configs,
}

impl Endpoint {
    pub(crate) const COUNT: usize = 5;
}

/// A granted answer, and its version.
enum Granted {
    V1(Bytes),
    /// With its envelope.
    V3(Bytes),
}

/// Why there is no granted answer.
enum Failure {
    /// The server has no such path: it is of another version.
    NoPath(Error),
    /// There is no such object.
    NotFound(Error),
    Error(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NoPath(error) | Failure::NotFound(error) | Failure::Error(error) => error,
        }
    }
}

impl Http {
    pub(crate) fn new(client: Client, server: usize) -> Self {
        Self { client, server }
    }

    /// A page of the services of a group, without their group. Pages count from 1.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list(
        &self,
        namespace: &str,
        group: &str,
        page: u32,
        size: u32,
    ) -> Result<Page<Arc<str>>, Error> {
        let v1 = paged(["v1", "ns", "service", "list"], page, size)
            .query("namespaceId", named(namespace))
            .query("groupName", group);
        // It finds all groups whose name contains this one.
        let v3 = paged(["v3", "admin", "ns", "service", "list"], page, size)
            .query("namespaceId", named(namespace))
            .query("groupNameParam", group);
        let answer = self.either(Endpoint::List, v1, v3, Subject::Services);
        match answer.await? {
            Granted::V1(body) => Ok(json::service_names(&body)?),
            Granted::V3(body) => {
                let found = json::catalog(self.data(&body)?)?;
                let entries = found.items.len();
                let of_group = found.items.into_iter().filter(|name| &*name.group == group);
                let items: Vec<_> = of_group.map(|name| name.service).collect();
                Ok(Page {
                    total: found.total,
                    others: found.others + entries - items.len(),
                    items,
                })
            }
        }
    }

    /// A page of the services of all groups, those without instances too. Pages count from 1.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn catalog(
        &self,
        namespace: &str,
        page: u32,
        size: u32,
    ) -> Result<Page<Name>, Error> {
        let v1 = paged(["v1", "ns", "catalog", "services"], page, size)
            .query("namespaceId", named(namespace))
            .query("withInstances", "false")
            .query("hasIpCount", "false")
            .query("serviceNameParam", "")
            .query("groupNameParam", "");
        let v3 = paged(["v3", "admin", "ns", "service", "list"], page, size)
            .query("namespaceId", named(namespace))
            .query("ignoreEmptyService", "false");
        let answer = self.either(Endpoint::Catalog, v1, v3, Subject::Services);
        Ok(match answer.await? {
            Granted::V1(body) => json::catalog(&body)?,
            Granted::V3(body) => json::catalog(self.data(&body)?)?,
        })
    }

    /// A service as its clients see it: see [`ServiceInfo::protected`]. Nacos 1 does not say that a
    /// service is protected: where all instances are said to be healthy, that is found out by
    /// further requests. Nacos 3.0 keeps it to itself.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn instances(&self, namespace: &str, name: &Name) -> Result<ServiceInfo, Error> {
        let v1 = of_service(["v1", "ns", "instance", "list"], namespace, name);
        let v3 = of_service(["v3", "client", "ns", "instance", "list"], namespace, name);
        let answer = self.either(Endpoint::Instances, v1, v3, Subject::Service(name));
        let body = match answer.await? {
            Granted::V1(body) => body,
            Granted::V3(body) => return Ok(json::service_or_hosts(self.data(&body)?, name)?),
        };
        let mut service = json::service(&body, Some(name))?;
        let all_healthy = service.hosts.iter().all(|host| host.healthy);
        if all_healthy && !service.hosts.is_empty() && !json::tells_protection(&body)? {
            let truth = self.true_instances(namespace, name).await?;
            service.protected = truth.iter().any(|host| host.enabled && !host.healthy);
        }
        Ok(service)
    }

    /// The instances of a service with their true health, whatever its protection threshold makes
    /// of it for clients, and those that are disabled too. None if there is no such service. Nacos
    /// 3.0 can say only what clients see.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn true_instances(&self, namespace: &str, name: &Name) -> Result<Vec<Host>, Error> {
        let v1 = of_service(["v1", "ns", "catalog", "service"], namespace, name);
        let v3 = of_service(["v3", "admin", "ns", "instance", "list"], namespace, name);
        let answer = self.either(Endpoint::TrueInstances, v1, v3, Subject::Service(name));
        let clusters = match answer.await {
            Ok(Granted::V1(body)) => json::clusters(&body)?,
            Ok(Granted::V3(body)) => {
                return Ok(json::service_or_hosts(self.data(&body)?, name)?.hosts);
            }
            Err(Failure::NotFound(_)) => return Ok(Vec::new()),
            Err(failure) => return Err(failure.into()),
        };
        let mut all = Vec::new();
        for cluster in clusters {
            all.extend(self.true_instances_of(namespace, name, cluster).await?);
        }
        Ok(all)
    }

    async fn true_instances_of(
        &self,
        namespace: &str,
        name: &Name,
        cluster: String,
    ) -> Result<Vec<Host>, Error> {
        let request = of_service(["v1", "ns", "catalog", "instances"], namespace, name)
            .query("clusterName", cluster)
            .query("pageNo", "1")
            .query("pageSize", ALL.to_string());
        match self.granted(&request, Subject::Service(name)).await {
            Ok(body) => Ok(json::instances(&body)?.items),
            // It went meanwhile.
            Err(Failure::NotFound(_)) => Ok(Vec::new()),
            Err(failure) => Err(failure.into()),
        }
    }

    /// A page of the configuration items of a group whose data id matches the pattern, where `*` is
    /// any text. Pages count from 1.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn configs(
        &self,
        namespace: &str,
        group: &str,
        pattern: &str,
        page: u32,
        size: u32,
    ) -> Result<Page<ConfigItem>, Error> {
        let tenant = tenant(namespace);
        let subject = Subject::Configs { tenant, group };
        let v1 = paged(["v1", "cs", "configs"], page, size)
            .query("search", "blur")
            .query("tenant", tenant)
            .query("group", group)
            .query("dataId", pattern);
        let v3 = paged(["v3", "admin", "cs", "config", "list"], page, size)
            .query("search", "blur")
            .query("namespaceId", named(namespace))
            .query("groupName", group)
            .query("dataId", pattern);
        let found = match self.either(Endpoint::Configs, v1, v3, subject).await? {
            Granted::V1(body) => json::configs(&body)?,
            Granted::V3(body) => json::configs(self.data(&body)?)?,
        };
        let entries = found.items.len() + found.others;
        let mut items = Vec::with_capacity(found.items.len());
        for item in found.items {
            items.extend(self.with_content(namespace, group, item).await?);
        }
        Ok(Page {
            total: found.total,
            others: entries - items.len(),
            items,
        })
    }

    /// Lists of Nacos 3 are without contents. `None` if the item went meanwhile.
    async fn with_content(
        &self,
        namespace: &str,
        group: &str,
        item: RawItem,
    ) -> Result<Option<ConfigItem>, Error> {
        let RawItem { data_id, content } = item;
        if let Some(content) = content {
            return Ok(Some(ConfigItem { data_id, content }));
        }
        let request = request(["v3", "admin", "cs", "config"])
            .query("namespaceId", named(namespace))
            .query("groupName", group)
            .query("dataId", &*data_id);
        let tenant = tenant(namespace);
        let subject = Subject::Configs { tenant, group };
        let content = match self.granted(&request, subject).await {
            Ok(body) => json::content(self.data(&body)?)?,
            Err(Failure::NotFound(_)) => None,
            Err(failure) => return Err(failure.into()),
        };
        Ok(content.map(|content| ConfigItem { data_id, content }))
    }

    /// Asks in the version that the server has.
    async fn either(
        &self,
        endpoint: Endpoint,
        v1: Request,
        v3: Request,
        subject: Subject<'_>,
    ) -> Result<Granted, Failure> {
        let modern = &self.client.at(self.server).modern[endpoint as usize];
        let is_modern = modern.load(Ordering::Relaxed);
        let (first, second) = if is_modern { (&v3, &v1) } else { (&v1, &v3) };
        let granted = |modern, body| match modern {
            false => Granted::V1(body),
            true => Granted::V3(body),
        };
        match self.granted(first, subject).await {
            Ok(body) => return Ok(granted(is_modern, body)),
            Err(Failure::NoPath(_)) => {}
            Err(failure) => return Err(failure),
        }
        let answer = self.granted(second, subject).await;
        if matches!(answer, Ok(_) | Err(Failure::NotFound(_))) {
            modern.store(!is_modern, Ordering::Relaxed);
        }
        answer.map(|body| granted(!is_modern, body))
    }

    /// A request that shows who we are; with a new token if the server does not take the old one.
    async fn granted(&self, request: &Request, subject: Subject<'_>) -> Result<Bytes, Failure> {
        let proof = self.client.prove(self.server, subject).await?;
        let mut answer = self.send(request, &proof, subject).await?;
        if is_forbidden(&answer)
            && let Some(proof) = self
                .client
                .prove_again(self.server, subject, &proof)
                .await?
        {
            answer = self.send(request, &proof, subject).await?;
            if is_forbidden(&answer) {
                self.client.refused_again(self.server, &proof).await;
            }
        }
        if answer.status.is_success() {
            self.client.meter().answered();
            return Ok(answer.body);
        }
        Err(self.refused(&answer))
    }

    async fn send(
        &self,
        request: &Request,
        proof: &Proof,
        subject: Subject<'_>,
    ) -> Result<Answer, Error> {
        let mut request = request.clone();
        match proof {
            Proof::Nothing => {}
            // As a header it is in no access log. All versions that know tokens take it.
            Proof::Token(token) => {
                request = request.header(http::header::AUTHORIZATION, token.bearer()?);
            }
            Proof::Signature(fields) => {
                for (key, value) in fields {
                    request = signed(request, subject, key, value)?;
                }
            }
        }
        self.client.meter().asked();
        let http = &self.client.at(self.server).http;
        http.send(&request).await.map_err(unreachable)
    }

    fn refused(&self, answer: &Answer) -> Failure {
        let said = text(&answer.body);
        if is_forbidden(answer) {
            return self.client.denied(self.server, &said).into();
        }
        let what = format!(
            "{}: {said} ({})",
            self.client.server(self.server),
            answer.status
        );
        match answer.status {
            StatusCode::NOT_FOUND if is_of_nacos(&answer.body) => {
                Failure::NotFound(Error::Refused(what))
            }
            status if is_missing(status) => {
                let hint = "is it a Nacos, and is the path of its address right?";
                Failure::NoPath(Error::Unsupported(format!("{what}; {hint}")))
            }
            _ => Error::Refused(what).into(),
        }
    }

    /// What is in the envelope of an answer of v3.
    fn data<'a>(&self, body: &'a [u8]) -> Result<&'a [u8], Error> {
        let server = self.client.server(self.server);
        json::data(body)?.map_err(|said| Error::Refused(format!("{server}: {said}")))
    }
}

/// The namespace as naming writes it.
fn named(namespace: &str) -> &str {
    match namespace {
        "" => "public",
        id => id,
    }
}

fn request<const N: usize>(path: [&str; N]) -> Request {
    Request::get(path).deadline(DEADLINE)
}

fn paged<const N: usize>(path: [&str; N], page: u32, size: u32) -> Request {
    request(path)
        .query("pageNo", page.to_string())
        .query("pageSize", size.to_string())
}

/// All versions take the group on its own; v1 of Nacos 1 only before the service.
fn of_service<const N: usize>(path: [&str; N], namespace: &str, name: &Name) -> Request {
    let request = request(path).query("namespaceId", named(namespace));
    if path[0] == "v1" {
        return request.query("serviceName", name.grouped());
    }
    request
        .query("groupName", &*name.group)
        .query("serviceName", &*name.service)
}

/// The Java client puts signatures for services into the query, those for configuration items into
/// headers.
fn signed(
    request: Request,
    subject: Subject<'_>,
    key: &'static str,
    value: &str,
) -> Result<Request, Error> {
    if !matches!(subject, Subject::Configs { .. }) {
        return Ok(request.query(key, value));
    }
    let wrong = |_| Error::Config("the access key is no line of text".into());
    let name = HeaderName::try_from(key).map_err(|_| wrong(()))?;
    let value = HeaderValue::try_from(value).map_err(|_| wrong(()))?;
    Ok(request.header(name, value))
}

fn is_forbidden(answer: &Answer) -> bool {
    matches!(
        answer.status,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
    )
}

/// Whether a server of another version would have the path.
pub(crate) fn is_missing(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::NOT_IMPLEMENTED
    )
}

/// Whether an error is Nacos' own, about an object, and not that of its Web server about a path:
/// `caused: …` in v1, an envelope with a code in v3.
fn is_of_nacos(body: &[u8]) -> bool {
    body.starts_with(b"caused:") || json::data(body).is_ok()
}

/// The beginning of an answer, for people.
pub(crate) fn text(body: &[u8]) -> String {
    let text = json::message(body).unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(300).collect()
}

pub(crate) fn unreachable(error: HttpError) -> Error {
    match error {
        HttpError::Config(what) => Error::Config(what),
        HttpError::TooLarge { .. } => Error::Protocol(error.to_string()),
        HttpError::Connect { .. } | HttpError::Broken { .. } | HttpError::Timeout { .. } => {
            Error::Transport(error.to_string())
        }
    }
}
