//! The way from a service to its objects, step by step.

use diolkos_istio::{Object, ServiceEntry, ServicePort, Spec, validate};
use diolkos_model::{Instance, Service, Workloads};

use crate::{
    Decision, Policy, Reason, Subject, Verdict,
    decision::{Decisions, Refused},
    endpoints::{self, Endpoint},
    host::{self, Names},
    objects, ports, select,
    workloads::Pods,
};

/// What becomes of a service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The host that it claims; `None` if it got that far only.
    pub host: Option<String>,
    /// Whether the host had to be changed to be valid: another service may come to the same one.
    pub altered: bool,
    /// Further hosts that it claims.
    pub aliases: Vec<String>,
    /// How many endpoints it has.
    pub endpoints: usize,
    /// The objects to have; empty if it is refused.
    pub objects: Vec<Object>,
    /// Every decision on the way.
    pub decisions: Vec<Decision>,
}

impl Plan {
    /// The decision that refused the service, if it is refused.
    #[must_use]
    pub fn refusal(&self) -> Option<&Decision> {
        self.decisions
            .iter()
            .find(|d| d.reason.verdict() == Verdict::Refused)
    }

    /// The ports that clients dial.
    #[must_use]
    pub fn ports(&self) -> &[ServicePort] {
        self.service_entry().map_or(&[], |entry| &entry.ports)
    }

    /// The service entry (the first, if it is sharded).
    #[must_use]
    pub fn service_entry(&self) -> Option<&ServiceEntry> {
        self.objects.iter().find_map(|object| match &object.spec {
            Spec::ServiceEntry(entry) => Some(entry),
            Spec::WorkloadEntry(_) => None,
        })
    }

    /// The instances that are left out, each with its first reason.
    pub fn dropped_instances(&self) -> impl Iterator<Item = (&str, Reason)> {
        let mut last = None;
        self.decisions.iter().filter_map(move |d| {
            let Subject::Instance(id) = &d.subject else {
                return None;
            };
            let costs_instance = d.reason.verdict() == Verdict::Dropped
                && !matches!(
                    d.reason,
                    Reason::LabelDenied | Reason::LabelInvalid | Reason::PortRefused
                );
            let new = costs_instance && last != Some(id);
            if costs_instance {
                last = Some(id);
            }
            new.then_some((&**id, d.reason))
        })
    }
}

/// Plans one service of which no Pods are known. Pure; never fails: a refusal is a plan without objects.
#[must_use]
pub fn plan(policy: &Policy, service: &Service) -> Plan {
    plan_with(policy, service, &Workloads::new())
}

/// As [`plan`]; what [`Policy::pods`] says is taken from these Pods. Those at other addresses than the
/// service's do not matter.
#[must_use]
pub fn plan_with(policy: &Policy, service: &Service, workloads: &Workloads) -> Plan {
    collect(|decisions| steps(policy, service, workloads, decisions, |endpoints| endpoints))
}

/// Plans a service that has no instances any more in the shape that it had last, as `service` holds
/// it: the same hosts and ports, and no endpoints. Clients get an answer at once then instead of
/// being sent past the mesh.
#[must_use]
pub fn plan_empty(policy: &Policy, service: &Service) -> Plan {
    let nobody = Workloads::new();
    collect(|decisions| steps(policy, service, &nobody, decisions, |_| Vec::new()))
}

fn collect(
    make: impl FnOnce(&mut Decisions) -> Result<(Names, usize, Vec<Object>), Refused>,
) -> Plan {
    let mut decisions = Decisions::default();
    let mut plan = Plan::default();
    // The refusal is among the decisions already.
    if let Ok((names, endpoints, objects)) = make(&mut decisions) {
        plan.host = Some(names.host);
        plan.aliases = names.aliases;
        plan.altered = names.altered;
        plan.endpoints = endpoints;
        plan.objects = objects;
    }
    plan.decisions = decisions.0;
    plan
}

fn steps(
    policy: &Policy,
    service: &Service,
    workloads: &Workloads,
    decisions: &mut Decisions,
    keep: impl FnOnce(Vec<Endpoint>) -> Vec<Endpoint>,
) -> Result<(Names, usize, Vec<Object>), Refused> {
    if let Err(why) = select::service(&policy.select, service) {
        decisions.service(Reason::ServiceExcluded, why);
        return Err(Refused);
    }
    let (host, ports) = policy.host_and_ports(service);
    let mut names = host::names(policy, host, service, decisions)?;
    let instances = selected(policy, service, decisions);
    let layout = ports::layout(ports, service, &instances, decisions)?;
    if !names.aliases.is_empty() && layout.needs_one_host() {
        decisions.service(
            Reason::AliasRefused,
            "aliases need ports of the HTTP or TLS family: Istio cannot tell hosts apart on others",
        );
        names.aliases.clear();
    }
    let pods = Pods::new(policy, workloads, &names.namespace);
    let endpoints = endpoints::endpoints(policy, service, &instances, &layout, pods, decisions);
    let endpoints = keep(endpoints);
    let count = endpoints.len();
    let objects = objects::objects(policy, service, &names, &layout, endpoints);
    refuse_invalid(&objects, decisions)?;
    Ok((names, count, objects))
}

fn selected<'a>(
    policy: &Policy,
    service: &'a Service,
    decisions: &mut Decisions,
) -> Vec<&'a Instance> {
    let mut instances = Vec::with_capacity(service.instances.len());
    for instance in service.instances.iter() {
        match select::instance(&policy.select, service, instance) {
            Ok(()) => instances.push(instance),
            Err(why) => decisions.instance(&instance.id, Reason::InstanceExcluded, why),
        }
    }
    instances
}

/// The last gate: Istio's own rules over every object. Endpoints were checked one by one, so what
/// fails here concerns the service as a whole.
fn refuse_invalid(objects: &[Object], decisions: &mut Decisions) -> Result<(), Refused> {
    let mut valid = true;
    for object in objects {
        for violation in validate::object(object) {
            decisions.service(Reason::Invalid, format!("{}: {violation}", object.key));
            valid = false;
        }
    }
    valid.then_some(()).ok_or(Refused)
}

#[cfg(test)]
mod tests;
