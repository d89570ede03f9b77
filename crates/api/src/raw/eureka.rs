//! Eureka.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AuthSpec, TlsSpec};

/// Netflix Eureka, also that of Spring Cloud.
#[derive(Deserialize, Serialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EurekaSpec {
    /// Base URLs of peers with their context path (`http://` or `https://`), the preferred one
    /// first; the next one is taken when one fails. Without a path, `/eureka` is meant. User names
    /// and passwords in a URL are refused: use `auth`. Default: http://127.0.0.1:8761/eureka.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// The region that the instances are in: that of their locality; the zone is what an instance
    /// says. Default: not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Statuses in which an instance gets traffic. Default: UP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub statuses: Vec<EurekaStatus>,
    /// Basic authentication.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthSpec>,
    /// TLS, for `https://` addresses. Default: the system's authorities, no client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSpec>,
    /// How often changes are asked for, 500ms to 10m. Eureka answers from a cache of its own (30s
    /// by its default): asking more often than that is of no use. Default: 5s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]+(ms|s|m|h))+$"))]
    pub poll_interval: Option<String>,
    /// So long after a peer was lost nothing counts as gone: another one, or the same after a
    /// restart, may not know all instances yet. Up to 1h. Default: 90s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]+(ms|s|m|h))+$"))]
    pub settle_time: Option<String>,
}

/// A status of an instance in Eureka.
#[derive(
    Deserialize, Serialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EurekaStatus {
    /// It takes traffic.
    Up,
    /// Its health check fails.
    Down,
    /// It is not ready yet.
    Starting,
    /// It was taken out of traffic on purpose.
    OutOfService,
    /// Nothing is known.
    Unknown,
}

impl EurekaStatus {
    /// The name, as Eureka and documents write it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Up => "UP",
            Self::Down => "DOWN",
            Self::Starting => "STARTING",
            Self::OutOfService => "OUT_OF_SERVICE",
            Self::Unknown => "UNKNOWN",
        }
    }
}
