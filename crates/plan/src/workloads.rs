//! What endpoints take from the Pods behind their addresses.

use std::{collections::BTreeMap, net::IpAddr};

use diolkos_model::{Locality, Workload, Workloads};

use crate::{PodPolicy, Policy, Reason, decision::Decisions, endpoints::Endpoint};

/// The label that says whether an endpoint takes Istio's mutual TLS.
pub(crate) const TLS_MODE: &str = "security.istio.io/tlsMode";

/// The value of [`TLS_MODE`] of an endpoint that does.
const ISTIO: &str = "istio";

/// The Pods that the endpoints of one service may take from.
#[derive(Clone, Copy)]
pub(crate) struct Pods<'a> {
    policy: &'a PodPolicy,
    known: &'a Workloads,
    /// The namespace of the objects.
    namespace: &'a str,
}

impl<'a> Pods<'a> {
    /// `None` where nothing is taken from Pods.
    pub(crate) fn new(
        policy: &'a Policy,
        known: &'a Workloads,
        namespace: &'a str,
    ) -> Option<Self> {
        policy.pods.as_ref().map(|policy| Self {
            policy,
            known,
            namespace,
        })
    }

    /// The Pod that has this address.
    pub(crate) fn at(&self, ip: IpAddr) -> Option<Pod<'a>> {
        self.known.get(&ip).map(|workload| Pod {
            workload,
            pods: *self,
        })
    }
}

/// The Pod behind one endpoint.
#[derive(Clone, Copy)]
pub(crate) struct Pod<'a> {
    workload: &'a Workload,
    pods: Pods<'a>,
}

impl<'a> Pod<'a> {
    /// Its labels go before those of the registry: the platform wrote them, and they are what Istio itself goes by.
    /// They are valid, since Kubernetes took them.
    pub(crate) fn put_labels(&self, labels: &mut BTreeMap<String, String>) {
        labels.extend(self.labels().map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    fn labels(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let (workload, include) = (self.workload, &self.pods.policy.labels);
        let all = workload.labels.iter().map(|(k, v)| (&**k, &**v));
        all.filter(|(key, _)| include.is_match(key))
    }

    /// Its locality, if that is wanted and known.
    pub(crate) fn locality(&self) -> Option<&'a Locality> {
        let locality = &self.workload.locality;
        (self.pods.policy.locality && !locality.region.is_empty()).then_some(locality)
    }

    /// The service account of an endpoint with these labels. Only where the endpoint takes mutual TLS: without the
    /// label Istio would conclude from an account that it does. And only from the namespace of the objects: Istio takes an
    /// account for one of that namespace, so clients would wait for the identity of somebody else.
    pub(crate) fn service_account(&self, labels: &BTreeMap<String, String>) -> Option<&'a str> {
        let account = self.workload.service_account.as_deref()?;
        let wanted = self.pods.policy.service_account && takes_mutual_tls(labels);
        (wanted && self.is_in_namespace()).then_some(account)
    }

    fn is_in_namespace(&self) -> bool {
        *self.workload.namespace == *self.pods.namespace
    }

    /// Where the values come from, in words.
    pub(crate) fn describe(&self, labels: &BTreeMap<String, String>) -> String {
        let Workload {
            namespace, name, ..
        } = self.workload;
        let mut taken: Vec<String> = self.labels().map(|(k, v)| format!("{k}={v}")).collect();
        if let Some(account) = self.service_account(labels) {
            taken.push(format!("service account {account}"));
        } else if let Some(account) = &self.workload.service_account
            && self.pods.policy.service_account
        {
            let why = if self.is_in_namespace() {
                format!("the endpoint has no label {TLS_MODE}={ISTIO}")
            } else {
                let objects = self.pods.namespace;
                format!("Istio would take it for one of the objects' namespace {objects}")
            };
            taken.push(format!("not its service account {account}: {why}"));
        }
        if let Some(locality) = self.locality() {
            taken.push(format!("locality {}", locality_text(locality)));
        }
        if taken.is_empty() {
            taken.push("nothing to take".to_owned());
        }
        format!("from Pod {namespace}/{name}: {}", taken.join(", "))
    }
}

/// `region/zone/subzone`, as Istio writes it, without empty parts at the end.
pub(crate) fn locality_text(locality: &Locality) -> String {
    let Locality {
        region,
        zone,
        sub_zone,
    } = locality;
    let parts = [region, zone, sub_zone].map(|part| part.replace('/', "-"));
    parts.join("/").trim_end_matches('/').to_owned()
}

fn takes_mutual_tls(labels: &BTreeMap<String, String>) -> bool {
    labels.get(TLS_MODE).is_some_and(|mode| mode == ISTIO)
}

/// Istio's clients accept exactly the accounts of a service's endpoints, and any if there are none. So where one endpoint
/// that takes mutual TLS has none, those of the others would cut it off: none is written then.
pub(crate) fn settle_accounts(endpoints: &mut [Endpoint], decisions: &mut Decisions) {
    let without = endpoints.iter().find(|endpoint| {
        let entry = &endpoint.entry;
        takes_mutual_tls(&entry.labels) && entry.service_account.is_empty()
    });
    let Some(without) = without.map(|endpoint| endpoint.id.clone()) else {
        return;
    };
    let mut dropped = false;
    for endpoint in endpoints.iter_mut().filter(|e| e.account_of_pod) {
        endpoint.entry.service_account.clear();
        endpoint.account_of_pod = false;
        dropped = true;
    }
    if dropped {
        decisions.service(
            Reason::ServiceAccountsMixed,
            format!(
                "no service account of a Pod is written: the one of instance {without} is not \
                 known, and clients would refuse it"
            ),
        );
    }
}

#[cfg(test)]
mod tests;
