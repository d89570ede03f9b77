//! What the stub holds, what it was asked, and what it pushes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::mpsc::Sender;
use tokio::time::sleep;

use super::wire::Payload;
use super::{Asked, Faults, Host, Version};

/// Group and service of the only namespace.
pub(super) type Name = (String, String);

/// Splits `GROUP@@service`; without a group it is `DEFAULT_GROUP`.
pub(super) fn name(text: &str) -> Name {
    let (group, service) = text.split_once("@@").unwrap_or(("DEFAULT_GROUP", text));
    (group.to_owned(), service.to_owned())
}

/// A service as it is in truth.
#[derive(Debug, Default)]
pub(super) struct Service {
    pub(super) hosts: Vec<Host>,
    /// The server says of all hosts that they are healthy.
    pub(super) protected: bool,
}

/// A TCP connection to the gRPC port.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// There once the connection is set up.
    pub(super) pushes: Option<Sender<Payload>>,
    pub(super) subscribed: BTreeSet<Name>,
    pub(super) watches: bool,
}

/// Who may ask.
#[derive(Debug)]
pub(super) struct Login {
    pub(super) username: String,
    pub(super) password: String,
    pub(super) tokens: BTreeSet<String>,
    pub(super) count: usize,
}

/// What happens after the next page of a list.
pub(super) type Tear = Box<dyn FnOnce(&mut State) + Send>;

/// All that the stub knows.
pub(super) struct State {
    pub(super) version: Version,
    /// Milliseconds since 1970. It goes on by one with each answer that has a time.
    pub(super) clock: i64,
    pub(super) services: BTreeMap<Name, Service>,
    pub(super) configs: BTreeMap<(String, String), String>,
    pub(super) links: BTreeMap<u64, Link>,
    /// Connections so far.
    pub(super) connections: u64,
    pub(super) faults: Faults,
    pub(super) login: Option<Login>,
    pub(super) tear: Option<Tear>,
    pub(super) asked: Vec<Asked>,
    /// The number of the last push, whoever it was for.
    pub(super) request_id: u64,
    pub(super) pushed: Vec<String>,
    pub(super) acknowledged: Vec<String>,
}

impl State {
    pub(super) fn new(version: Version) -> Self {
        Self {
            version,
            clock: 1_795_252_683_972,
            services: BTreeMap::new(),
            configs: BTreeMap::new(),
            links: BTreeMap::new(),
            connections: 0,
            faults: Faults::default(),
            login: None,
            tear: None,
            asked: Vec::new(),
            request_id: 0,
            pushed: Vec::new(),
            acknowledged: Vec::new(),
        }
    }

    pub(super) fn tick(&mut self) -> i64 {
        self.clock += 1;
        self.clock
    }

    /// Whether the token lets its owner in.
    pub(super) fn lets_in(&self, token: Option<&str>) -> bool {
        match &self.login {
            None => true,
            Some(login) => token.is_some_and(|token| login.tokens.contains(token)),
        }
    }

    /// A token for who knows the password.
    pub(super) fn log_in(&mut self, username: &str, password: &str) -> Option<String> {
        let login = self.login.as_mut()?;
        if login.username != username || login.password != password {
            return None;
        }
        login.count += 1;
        let token = format!("token-{}", login.count);
        login.tokens.insert(token.clone());
        Some(token)
    }

    /// A page of all names that lists tell, and how many there are; `group` limits them to one.
    pub(super) fn page(
        &mut self,
        group: Option<&str>,
        number: usize,
        size: usize,
    ) -> (usize, Vec<Name>) {
        let told = |(in_group, service): &&Name| {
            let hidden = &self.faults.hidden;
            group.is_none_or(|group| in_group == group)
                && !hidden.contains(&format!("{in_group}@@{service}"))
        };
        let all: Vec<Name> = self.services.keys().filter(told).cloned().collect();
        let start = number.saturating_sub(1).saturating_mul(size);
        let page = all.iter().skip(start).take(size).cloned().collect();
        if let Some(tear) = self.tear.take() {
            tear(self);
        }
        (all.len(), page)
    }

    /// A service as gRPC tells it: names apart, disabled hosts left out, and no word about health if it is protected.
    pub(super) fn info(&mut self, name: &Name) -> Value {
        let time = self.tick();
        self.info_at(name, time)
    }

    pub(super) fn info_at(&self, name: &Name, time: i64) -> Value {
        let nothing = Service::default();
        let service = self.services.get(name).unwrap_or(&nothing);
        let told = service.hosts.iter().filter(|host| host.enabled);
        let hosts: Vec<Value> = told.map(|host| self.host(name, host, service)).collect();
        let (group, service_name) = name;
        let all = match self.version {
            Version::V3 => "allIps",
            Version::V1 | Version::V2 => "allIPs",
        };
        let mut info = json!({
            "name": service_name, "groupName": group, "clusters": "", "cacheMillis": 10000,
            "hosts": hosts, "lastRefTime": time, "checksum": "", "valid": true,
        });
        info[all] = json!(false);
        // Nacos 1 keeps that to itself.
        if self.version != Version::V1 {
            info["reachProtectionThreshold"] = json!(service.protected);
        }
        info
    }

    fn host(&self, (group, service): &Name, host: &Host, of: &Service) -> Value {
        let mut told = host.truth(group, service);
        told["healthy"] = json!(host.healthy || of.protected);
        if self.version == Version::V3 {
            let Host {
                ip, port, cluster, ..
            } = host;
            told["instanceId"] = json!(format!("{ip}#{port}#{cluster}#{service}"));
        }
        told
    }

    /// Sends the present state of a service to all who asked for it.
    pub(super) fn push(&mut self, name: &Name) {
        let info = self.info(name);
        self.push_info(name, &info);
    }

    /// Sends something to all who asked for a service.
    pub(super) fn push_info(&mut self, name: &Name, info: &Value) {
        if self.faults.drop_pushes {
            return;
        }
        let subscribed = |(id, link): (&u64, &Link)| link.subscribed.contains(name).then_some(*id);
        for id in self.links.iter().filter_map(subscribed).collect::<Vec<_>>() {
            let body = json!({"serviceInfo": info, "module": "naming"});
            self.send(id, "NotifySubscriberRequest", body);
        }
    }

    /// Tells who watches names that one came or went.
    pub(super) fn name_changed(&mut self, (group, service): &Name, how: &str) {
        let watches = |(id, link): (&u64, &Link)| link.watches.then_some(*id);
        for id in self.links.iter().filter_map(watches).collect::<Vec<_>>() {
            let body = json!({
                "syncType": "FUZZY_WATCH_RESOURCE_CHANGED",
                "serviceKey": format!("public@@{group}@@{service}"),
                "changedType": how, "module": "naming",
            });
            self.send(id, "NamingFuzzyWatchChangeNotifyRequest", body);
        }
    }

    /// Sends a request of the server over a connection, if it is set up.
    pub(super) fn send(&mut self, id: u64, kind: &str, mut body: Value) {
        let Some(pushes) = self.links.get(&id).and_then(|link| link.pushes.clone()) else {
            return;
        };
        self.request_id += 1;
        let request_id = self.request_id.to_string();
        body["headers"] = json!({});
        body["requestId"] = json!(request_id);
        let payload = Payload::new(kind, &body);
        self.pushed.push(request_id);
        let times = 1 + self.faults.repeat_pushes;
        let delay = self.faults.delay_pushes;
        if delay.is_zero() {
            repeat(&pushes, &payload, times);
            return;
        }
        tokio::spawn(async move {
            sleep(delay).await;
            repeat(&pushes, &payload, times);
        });
    }
}

/// What cannot be sent is lost with its connection.
fn repeat(pushes: &Sender<Payload>, payload: &Payload, times: usize) {
    for _ in 0..times {
        pushes.try_send(payload.clone()).ok();
    }
}

/// Shared between the servers and the test.
pub(super) type Shared = Arc<super::Inner>;
