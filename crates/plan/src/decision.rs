//! Why the objects are as they are.

use std::{fmt, sync::Arc};

use serde::Serialize;

/// One decision on the way from a service to its objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// What was decided on.
    pub subject: Subject,
    /// Why.
    pub reason: Reason,
    /// In words: what was there and what became of it.
    pub detail: String,
}

/// What a decision is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Subject {
    /// The service.
    Service,
    /// One instance, by id.
    Instance(Arc<str>),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service => f.write_str("service"),
            Self::Instance(id) => write!(f, "instance {id}"),
        }
    }
}

/// What a decision costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Verdict {
    /// Nothing is lost: how a value came about.
    Noted,
    /// It works, but there is a better way.
    Advice,
    /// A part is left out (an instance, a label, a port); the rest goes on.
    Dropped,
    /// The service is not carried over.
    Refused,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident => $verdict:ident,)+) => {
        /// The rule behind a decision. The names are stable: metrics, conditions and scripts use them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        pub enum Reason { $($(#[doc = $doc])+ $name,)+ }

        impl Reason {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The name, for metrics and tables.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// What it costs.
            #[must_use]
            pub fn verdict(self) -> Verdict {
                match self { $(Self::$name => Verdict::$verdict,)+ }
            }
        }
    };
}

reasons! {
    /// The host and how it was made.
    Host => Noted,
    /// A name was changed to be valid in DNS.
    NameAltered => Noted,
    /// The ports that clients dial, and where they come from.
    Ports => Noted,
    /// An instance became an endpoint.
    Endpoint => Noted,
    /// A label was changed to be valid in Kubernetes.
    LabelAltered => Noted,
    /// The address is that of a Pod, and this is what was taken from it.
    Workload => Noted,
    /// Instances disagree on the protocol of a port; the majority decides.
    ProtocolMixed => Advice,
    /// An instance lacks a port of the service; traffic for it goes to the instance's first port.
    PortFallback => Advice,
    /// More than eight registered ports: clients dial one port instead.
    DynamicPorts => Advice,
    /// Not all endpoints that take mutual TLS have a known service account: those of Pods are left out.
    ServiceAccountsMixed => Advice,
    /// Two ports of the service have one number; the first stays.
    PortClash => Dropped,
    /// A port number that cannot be.
    PortRefused => Dropped,
    /// An instance with no usable port.
    NoPort => Dropped,
    /// `select` leaves the instance out.
    InstanceExcluded => Dropped,
    /// The registry says that the instance must get no traffic.
    Unhealthy => Dropped,
    /// A weight of 0 means no traffic (to Istio it would mean "unset").
    WeightZero => Dropped,
    /// The address is not an IP address.
    AddressNotIp => Dropped,
    /// The address is one that no registry, or not this one, may claim.
    AddressDenied => Dropped,
    /// Another instance has the same address and ports.
    Duplicate => Dropped,
    /// The registry may not set labels with this prefix.
    LabelDenied => Dropped,
    /// A label cannot be made valid.
    LabelInvalid => Dropped,
    /// Istio would refuse the endpoint.
    EndpointInvalid => Dropped,
    /// More endpoints than `grant.maxEndpoints`.
    TooManyEndpoints => Dropped,
    /// An alias cannot be used.
    AliasRefused => Dropped,
    /// `select` leaves the service out.
    ServiceExcluded => Refused,
    /// A template has no value for this service.
    TemplateUnresolved => Refused,
    /// No valid host can be made, or this registry may not claim it.
    HostDenied => Refused,
    /// No valid namespace can be made, or this registry may not write there.
    NamespaceDenied => Refused,
    /// No instance has a usable port.
    NoPorts => Refused,
    /// Istio would refuse the service entry.
    Invalid => Refused,
    /// Another service has the host.
    HostTaken => Refused,
    /// A Service of the cluster has the host.
    HostOfService => Refused,
    /// More services than `grant.maxServices`.
    TooManyServices => Refused,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Collects decisions.
#[derive(Default)]
pub(crate) struct Decisions(pub(crate) Vec<Decision>);

impl Decisions {
    pub(crate) fn service(&mut self, reason: Reason, detail: impl Into<String>) {
        self.push(Subject::Service, reason, detail.into());
    }

    pub(crate) fn instance(&mut self, id: &Arc<str>, reason: Reason, detail: impl Into<String>) {
        self.push(Subject::Instance(id.clone()), reason, detail.into());
    }

    fn push(&mut self, subject: Subject, reason: Reason, detail: String) {
        self.0.push(Decision {
            subject,
            reason,
            detail,
        });
    }
}

/// The service is refused; the decision that says why is noted.
pub(crate) struct Refused;
