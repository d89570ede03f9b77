//! Hosts and namespaces: made from templates, valid, and granted.

use diolkos_istio::validate;
use diolkos_model::Service;

use crate::{
    Grant, Policy, Reason, Template,
    decision::{Decisions, Refused},
    names,
};

/// The names of a service in the mesh.
pub(crate) struct Names {
    pub(crate) host: String,
    /// Whether the host had to be changed to be valid, so that another service may have the same.
    pub(crate) altered: bool,
    pub(crate) aliases: Vec<String>,
    pub(crate) namespace: String,
}

impl Policy {
    /// The same without the aliases that come to one of these hosts for this service.
    #[must_use]
    pub fn without_aliases(&self, service: &Service, hosts: &[&str]) -> Self {
        let mut policy = self.clone();
        policy.aliases.retain(|template| {
            let alias = host(template, self, service);
            alias.is_ok_and(|(alias, _)| !hosts.contains(&&*alias))
        });
        policy
    }
}

pub(crate) fn names(
    policy: &Policy,
    template: &Template,
    service: &Service,
    decisions: &mut Decisions,
) -> Result<Names, Refused> {
    let mut refuse = |(reason, detail): (Reason, String)| {
        decisions.service(reason, detail);
        Refused
    };
    let namespace = namespace(policy, service).map_err(&mut refuse)?;
    let (host, written) = host(template, policy, service).map_err(&mut refuse)?;
    let altered = host != written;
    if altered {
        decisions.service(
            Reason::NameAltered,
            format!("'{written}' is not a valid host, '{host}' is used"),
        );
    }
    decisions.service(
        Reason::Host,
        format!("{host} in namespace {namespace}, from '{template}'"),
    );
    let mut aliases = Vec::new();
    for template in &policy.aliases {
        match self::host(template, policy, service) {
            Ok((alias, _)) if alias == host || aliases.contains(&alias) => {}
            Ok((alias, _)) => aliases.push(alias),
            // Not every service has a value for it, and none is missed.
            Err((Reason::TemplateUnresolved, _)) => {}
            Err((_, detail)) => decisions.service(Reason::AliasRefused, detail),
        }
    }
    Ok(Names {
        host,
        altered,
        aliases,
        namespace,
    })
}

/// The host, and the host as the template has it.
fn host(
    template: &Template,
    policy: &Policy,
    service: &Service,
) -> Result<(String, String), (Reason, String)> {
    let written = render(template, service)?;
    let host = names::dns_name(&written);
    if host.is_empty() {
        return Err((
            Reason::HostDenied,
            format!("no valid host can be made of '{written}'"),
        ));
    }
    if let Err(violation) = validate::host(&host) {
        return Err((Reason::HostDenied, format!("'{host}': {violation}")));
    }
    granted(&host, &policy.grant).map_err(|why| (Reason::HostDenied, why))?;
    Ok((host, written))
}

fn granted(host: &str, grant: &Grant) -> Result<(), String> {
    let cluster = format!("svc.{}", grant.cluster_domain);
    if host == cluster || host.ends_with(&format!(".{cluster}")) || host.ends_with(".svc") {
        return Err(format!(
            "'{host}' is a name of the cluster's own Services; no registry may claim it"
        ));
    }
    let allowed = grant.hosts.is_empty()
        || grant.hosts.iter().any(|suffix| {
            let suffix = suffix.trim_start_matches("*.").trim_start_matches('.');
            host == suffix || host.ends_with(&format!(".{suffix}"))
        });
    if allowed {
        Ok(())
    } else {
        Err(format!(
            "'{host}' is outside of grant.hosts ({})",
            grant.hosts.join(", ")
        ))
    }
}

fn namespace(policy: &Policy, service: &Service) -> Result<String, (Reason, String)> {
    let written = render(&policy.namespace, service)?;
    let namespace = names::dns_label(&written);
    if namespace.is_empty() {
        return Err((
            Reason::NamespaceDenied,
            format!("no valid namespace can be made of '{written}'"),
        ));
    }
    let allowed = &policy.grant.namespaces;
    if allowed.is_empty() || allowed.contains(&namespace) {
        Ok(namespace)
    } else {
        Err((
            Reason::NamespaceDenied,
            format!(
                "namespace '{namespace}' is outside of grant.namespaces ({})",
                allowed.join(", ")
            ),
        ))
    }
}

fn render(template: &Template, service: &Service) -> Result<String, (Reason, String)> {
    template.render(service, None).map_err(|missing| {
        (
            Reason::TemplateUnresolved,
            format!("template '{template}': {missing}"),
        )
    })
}
