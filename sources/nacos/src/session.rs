//! One connection to Nacos, of all namespaces: the snapshot, and then following the changes.
//!
//! Everything happens in one task, so that no two tasks can know different things. What is known is
//! always at hand as a whole, so a snapshot is made of it at once, and while a slow listener takes
//! its events pushes are still read and acknowledged.
//!
//! A namespace that cannot be read makes snapshots partial and is tried again. A connection that is
//! lost later ends the run for all: they lead to the same server, which has most likely gone, and the
//! next run reads all namespaces from one server again. Nothing is lost by it but some requests.

use std::{
    collections::{HashSet, VecDeque},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use diolkos_model::ServiceKey;
use diolkos_nacos::{Client, Connection, Error, Push, Pushes};
use diolkos_source_api::{
    Epoch, Event, EventSender, Evidence, HealthReporter, SourceCx, SourceError,
};
use diolkos_source_dubbo::Change;
use futures::{
    FutureExt, StreamExt,
    stream::{self, BoxStream, FuturesUnordered, SelectAll},
};
use tokio::time::{Instant, sleep_until};

use crate::{
    Config,
    link::{self, Done, Line, Link, Tag, Work},
    meter::Meter,
    namespace::{Namespace, joined},
    reader::Reader,
};

/// What is said while clients of a restarted server may still be on their way back.
const SETTLING: &str = "the connection is new, and clients may not have registered again yet";

/// One connection of the source.
pub(crate) struct Session<'a> {
    epoch: Epoch,
    config: &'a Config,
    server: Server,
    meter: Arc<Meter>,
    health: HealthReporter,
    links: Vec<Link<'a>>,
    work: Work,
    pushes: SelectAll<BoxStream<'static, (Tag, Result<Push, Error>)>>,
    /// Said, and not taken yet. Filled only when it is empty.
    outbox: VecDeque<Event>,
    /// Whether the first snapshot was said.
    begun: bool,
    /// Whether it was taken.
    live: bool,
    /// A snapshot is due as soon as all is read.
    snapshot: bool,
    /// After that everything is to be read again.
    again: bool,
    /// Something could not be read when the engine was told last.
    doubted: bool,
    /// Until then nothing counts as gone.
    settle: Option<Instant>,
    /// How long it takes until each service had its turn to be asked for.
    pub(crate) sweep: Duration,
    /// Whether Nacos said something since the last report.
    heard: bool,
    /// What was reported last.
    report: String,
}

/// The server that a run reads.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) client: Client,
    pub(crate) index: usize,
    /// Whether it is read by HTTP only.
    pub(crate) http_only: bool,
}

impl Server {
    /// Connects for a namespace, which says nothing about the right to read it.
    pub(crate) async fn connect(&self, namespace: Arc<str>) -> Result<Line, Error> {
        let http = self.client.http(self.index);
        let mut line = Line {
            reader: Reader {
                namespace,
                connection: None,
                hints: false,
                http,
            },
            pushes: None,
        };
        if self.http_only {
            return Ok(line);
        }
        let namespace = &line.reader.namespace;
        let (connection, pushes) = self.client.connect(self.index, namespace).await?;
        if connection.has_fuzzy_watch() {
            line.reader.hints = watches(&connection).await?;
        }
        line.reader.connection = Some(connection);
        line.pushes = Some(pushes);
        Ok(line)
    }

    pub(crate) fn address(&self) -> &str {
        self.client.server(self.index)
    }
}

/// Asks for hints of services that come and go. Without them the list is read more often.
async fn watches(connection: &Connection) -> Result<bool, Error> {
    match connection.fuzzy_watch().await {
        Ok(()) => Ok(true),
        Err(error @ (Error::Transport(_) | Error::Config(_))) => Err(error),
        Err(error) => {
            let server = connection.server();
            tracing::info!(server, %error, "no hints of new services, listing them often");
            Ok(false)
        }
    }
}

impl<'a> Session<'a> {
    /// A session over connections that are just made; there is one for each namespace.
    pub(crate) fn new(
        config: &'a Config,
        server: Server,
        meter: Arc<Meter>,
        health: HealthReporter,
        epoch: Epoch,
    ) -> Self {
        Self {
            epoch,
            config,
            server,
            meter,
            health,
            links: Vec::new(),
            work: FuturesUnordered::new(),
            pushes: SelectAll::new(),
            outbox: VecDeque::new(),
            begun: false,
            live: false,
            snapshot: true,
            again: false,
            doubted: false,
            settle: None,
            sweep: link::SWEEP,
            heard: true,
            report: String::new(),
        }
    }

    /// From now on until then nothing counts as gone.
    pub(crate) fn settle(&mut self, time: Duration) {
        self.settle = Some(Instant::now() + time);
    }

    /// One more namespace.
    ///
    /// # Errors
    /// When none of those so far can be read because of the configuration.
    pub(crate) fn add(
        &mut self,
        namespace: &'a mut Namespace,
        line: Result<Line, Error>,
    ) -> Result<(), SourceError> {
        let number = self.links.len();
        self.links
            .push(Link::new(number, namespace, self.config, self.sweep));
        match line {
            Ok(line) => {
                self.up(number, line);
                Ok(())
            }
            Err(error) => self.fail(number, &error),
        }
    }

    fn up(&mut self, number: usize, line: Line) {
        let link = &mut self.links[number];
        link.up(line.reader);
        if let Some(pushes) = line.pushes {
            self.pushes.push(follow(link.tag, pushes));
        }
        self.count();
    }

    /// Follows until the connection is of no more use.
    pub(crate) async fn run(&mut self, cx: &mut SourceCx) -> Result<Infallible, SourceError> {
        loop {
            self.step();
            let due = self.due();
            tokio::select! {
                sent = send(&cx.events, self.outbox.front()) => {
                    sent?;
                    self.outbox.pop_front();
                }
                Some((tag, push)) = self.pushes.next() => self.pushed(tag, push)?,
                Some((tag, done)) = self.work.next() => self.done(tag, done)?,
                Some(()) = cx.resync.recv() => {
                    // All requests so far are served by one snapshot.
                    while cx.resync.try_recv().is_ok() {}
                    self.resync();
                }
                () = sleep_until(due) => {}
            }
        }
    }

    /// Whether a snapshot came to its end over this connection.
    pub(crate) fn is_live(&self) -> bool {
        self.live
    }

    /// Begins what is due and says what there is to say.
    fn step(&mut self) {
        if self.settle.is_some_and(|end| Instant::now() >= end) {
            self.settle = None;
            self.reread();
        }
        for link in &mut self.links {
            link.step(&self.work);
        }
        if !self.outbox.is_empty() {
            return;
        }
        let settled = self.links.iter().all(Link::is_settled);
        if self.begun && !self.snapshot {
            let whole = self.complaint().is_none();
            // What made the last snapshot a partial one is over.
            self.snapshot = self.doubted && whole;
            self.doubted |= !whole;
        }
        if self.begun && std::mem::take(&mut self.heard) {
            self.tell_health();
        }
        if self.snapshot && settled {
            self.tell_all();
            if std::mem::take(&mut self.again) {
                self.reread();
            }
        } else if self.begun {
            self.tell_changes();
        }
    }

    fn due(&self) -> Instant {
        let links = self.links.iter().map(Link::due);
        let far = Instant::now() + Duration::from_secs(3600);
        links.chain(self.settle).fold(far, Instant::min)
    }

    /// A snapshot of what is read from now on is wanted.
    fn resync(&mut self) {
        if self.snapshot {
            self.again = true;
        } else {
            self.reread();
        }
    }

    /// Reads everything again, for a new snapshot.
    fn reread(&mut self) {
        self.snapshot = true;
        for link in &mut self.links {
            link.reread();
        }
    }

    fn pushed(&mut self, tag: Tag, push: Result<Push, Error>) -> Result<(), SourceError> {
        let link = &mut self.links[tag.link];
        if link.tag != tag {
            return Ok(());
        }
        match push {
            Ok(push) => {
                self.heard = true;
                link.pushed(push);
            }
            Err(error) => self.fail(tag.link, &error)?,
        }
        Ok(())
    }

    fn done(&mut self, tag: Tag, done: Done) -> Result<(), SourceError> {
        let link = &mut self.links[tag.link];
        if link.tag != tag {
            return Ok(());
        }
        self.heard |= done.is_answer();
        match done {
            Done::Revived(Ok(line)) => {
                self.up(tag.link, line);
                self.snapshot = true;
                Ok(())
            }
            Done::Revived(Err(error)) => self.fail(tag.link, &error),
            done => match link.done(done, &self.work) {
                Ok(()) => Ok(()),
                Err(error) => self.fail(tag.link, &error),
            },
        }
    }

    /// A namespace cannot be read. If the engine was told of it over this connection, or there is no
    /// other one, that ends the run.
    fn fail(&mut self, number: usize, error: &Error) -> Result<(), SourceError> {
        let link = &mut self.links[number];
        let fatal = fatal(self.server.address(), &link.namespace.id, error);
        if link.told || matches!(error, Error::Config(_)) {
            return Err(fatal);
        }
        let wait = link.lose(&error.to_string());
        let revive = revive(
            wait,
            self.server.clone(),
            link.namespace.id.clone(),
            self.config.clone(),
        );
        let tag = link.tag;
        self.work
            .push(revive.map(move |line| (tag, Done::Revived(line))).boxed());
        self.count();
        let all = self.config.namespaces.len();
        if self.links.len() == all && self.links.iter().all(|link| link.down.is_some()) {
            return Err(fatal);
        }
        Ok(())
    }

    fn count(&self) {
        let up = self.links.iter().filter(|link| link.down.is_none());
        self.meter.connected(up.count());
    }

    /// Names all services of all namespaces.
    fn tell_all(&mut self) {
        let epoch = self.epoch;
        self.outbox.push_back(Event::SnapshotStart { epoch });
        let evidence = partial(self.complaint());
        self.doubted = !evidence.is_complete();
        let settling = self.settle.is_some();
        for link in self.links.iter_mut().filter(|link| link.down.is_none()) {
            link.told = true;
            let namespace = &mut *link.namespace;
            let mut named = HashSet::new();
            for service in namespace.directory.snapshot() {
                let evidence = evidence_of(namespace, &service.key, settling);
                named.insert(service.key.clone());
                namespace.told.tell(&service);
                let service = service.into();
                self.outbox.push_back(Event::Upsert { service, evidence });
            }
            if evidence.is_complete() {
                namespace.told.keep(&named);
                continue;
            }
            // What a partial snapshot lacks stays, unless it says that it is gone. It says so each
            // time, since the guard may want to hear it more than once.
            for key in namespace.told.lacking(&named) {
                if evidence_of(namespace, &key, settling).is_complete() {
                    namespace.told.untell(&key);
                    self.outbox.push_back(Event::Remove { key });
                }
            }
        }
        self.outbox
            .push_back(Event::SnapshotEnd { epoch, evidence });
        (self.begun, self.snapshot) = (true, false);
    }

    /// Says what is different by now.
    fn tell_changes(&mut self) {
        let settling = self.settle.is_some();
        for link in self.links.iter_mut().filter(|link| link.told) {
            let namespace = &mut *link.namespace;
            for change in namespace.directory.take_changes() {
                match change {
                    Change::Upsert(service) => {
                        let evidence = evidence_of(namespace, &service.key, settling);
                        namespace.told.tell(&service);
                        let service = service.into();
                        self.outbox.push_back(Event::Upsert { service, evidence });
                    }
                    // It may have instances that cannot be seen.
                    Change::Remove(key) => {
                        if evidence_of(namespace, &key, settling).is_complete()
                            && namespace.told.untell(&key)
                        {
                            self.outbox.push_back(Event::Remove { key });
                        }
                    }
                }
            }
        }
    }

    /// Whether services may be missing altogether, and why.
    fn complaint(&self) -> Option<Arc<str>> {
        let settling: Option<Arc<str>> = self.settle.map(|_| SETTLING.into());
        let links = self.links.iter().filter_map(|link| match &link.down {
            Some(error) => Some(format!("namespace {}: {error}", link.namespace.id).into()),
            None => link.namespace.complaint(),
        });
        let reasons: Vec<Arc<str>> = settling.into_iter().chain(links).collect();
        joined(reasons.iter())
    }

    /// Says in one line how things stand, if that is news.
    fn tell_health(&mut self) {
        let (mut services, mut instances, mut protected) = (0, 0, 0);
        for link in &self.links {
            let told = link.namespace.told.counts();
            services += told.0;
            instances += told.1;
            protected += link.namespace.directory.protected();
        }
        let how = match self.server.http_only {
            true => "polling by HTTP",
            false => "following",
        };
        let address = self.server.address();
        let mut report = format!("{how} {address}: {services} services, {instances} instances");
        if protected > 0 {
            report += &format!("; {protected} services at their protection threshold");
        }
        if let Some(complaint) = self.complaint() {
            report += &format!("; {complaint}");
        }
        if report != self.report {
            self.health.live(report.as_str());
            self.report = report;
            self.live = true;
        }
    }
}

fn evidence_of(namespace: &Namespace, key: &ServiceKey, settling: bool) -> Evidence {
    match settling {
        true => Evidence::Partial(SETTLING.into()),
        false => partial(namespace.complaint_of(key)),
    }
}

fn partial(complaint: Option<Arc<str>>) -> Evidence {
    complaint.map_or(Evidence::Complete, Evidence::Partial)
}

/// The pushes of a connection, up to and with its end.
fn follow(tag: Tag, pushes: Pushes) -> BoxStream<'static, (Tag, Result<Push, Error>)> {
    let pushes = stream::unfold(Some(pushes), move |pushes| async move {
        let mut pushes = pushes?;
        let push = pushes.next().await;
        let rest = push.is_ok().then_some(pushes);
        Some(((tag, push), rest))
    });
    pushes.boxed()
}

/// Tries a lost namespace again: connects, and sees whether its services can be listed.
async fn revive(
    wait: Duration,
    server: Server,
    namespace: Arc<str>,
    config: Config,
) -> Result<Line, Error> {
    tokio::time::sleep(wait).await;
    let line = server.connect(namespace).await?;
    line.reader.probe(&config.groups).await?;
    Ok(line)
}

/// Sends the next event; pending while there is none.
async fn send(events: &EventSender, event: Option<&Event>) -> Result<(), SourceError> {
    match event {
        Some(event) => events.send(event.clone()).await,
        None => std::future::pending().await,
    }
}

/// What an error means that ends the run.
pub(crate) fn fatal(server: &str, namespace: &str, error: &Error) -> SourceError {
    let text = format!("{server}, namespace {namespace}: {error}");
    match error {
        Error::Config(_) => SourceError::Config(error.to_string()),
        Error::Denied(_) => SourceError::Denied(format!(
            "{text}; give the user the right to read the namespace"
        )),
        Error::Transport(_) | Error::Refused(_) => SourceError::Transport(text),
        Error::Unsupported(_) | Error::Protocol(_) => SourceError::Protocol(text),
    }
}
