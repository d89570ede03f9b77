//! Eureka.

use std::{collections::BTreeSet, ops::RangeInclusive, time::Duration};

use super::{
    connect::{self, Context, Paths},
    dubbo, text,
};
use crate::{
    fault::{Faults, FieldPath, Problem},
    raw::{EurekaSpec, EurekaStatus},
    settings::{EurekaSettings, TlsSettings},
    value,
};

const ADDRESS: &str = "http://127.0.0.1:8761/eureka";
const CONTEXT: &str = "/eureka";
const POLL_INTERVAL: &str = "5s";
const POLL_INTERVALS: RangeInclusive<Duration> =
    Duration::from_millis(500)..=Duration::from_secs(600);
/// Three heartbeats (30 s each): after one, a client of a server that lost it registers again.
const SETTLE_TIME: &str = "90s";

pub(super) fn eureka(
    spec: &EurekaSpec,
    at: &FieldPath,
    paths: Paths<'_>,
    faults: &mut Faults,
) -> Option<EurekaSettings> {
    let urls = connect::Urls {
        default: ADDRESS,
        credentials: "auth",
        path: Context::Default(CONTEXT),
    };
    let addresses = urls.check(&spec.addresses, &at.key("addresses"), faults);
    text::not_empty(spec.region.as_deref(), &at.key("region"), faults);
    let statuses = statuses(&spec.statuses, &at.key("statuses"), faults);
    let auth = dubbo::login(spec.auth.as_ref(), &at.key("auth"), paths, faults);
    let tls = match &spec.tls {
        None => Some(TlsSettings::default()),
        Some(spec) => connect::tls(spec, &at.key("tls"), paths, faults),
    };
    let poll_interval = poll_interval(spec, &at.key("pollInterval"), faults);
    let settle = spec.settle_time.as_deref().unwrap_or(SETTLE_TIME);
    let settle_time = connect::settle_time(settle, &at.key("settleTime"), faults);
    let addresses = addresses?;
    if spec.tls.is_some() {
        connect::tls_has_use(&addresses, &at.key("tls"), faults);
    }
    Some(EurekaSettings {
        addresses,
        region: spec.region.clone().unwrap_or_default().into(),
        statuses,
        auth: auth?,
        tls: tls?,
        poll_interval: poll_interval?,
        settle_time: settle_time?,
    })
}

fn statuses(list: &[EurekaStatus], at: &FieldPath, faults: &mut Faults) -> BTreeSet<String> {
    let names: Vec<_> = list.iter().map(|s| s.as_str().to_owned()).collect();
    text::no_repeats(text::items(&names, at), faults);
    if names.is_empty() {
        return [EurekaStatus::Up.as_str().to_owned()].into();
    }
    names.into_iter().collect()
}

fn poll_interval(spec: &EurekaSpec, at: &FieldPath, faults: &mut Faults) -> Option<Duration> {
    let text = spec.poll_interval.as_deref().unwrap_or(POLL_INTERVAL);
    let interval = faults.take(at, value::duration(text))?;
    if !POLL_INTERVALS.contains(&interval) {
        let (least, most) = ("500ms", "10m");
        faults.add(at, Problem::Range { least, most });
    }
    Some(interval)
}
