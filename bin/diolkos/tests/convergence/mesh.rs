//! The mesh's side: what is there, seen without the bridge, and every endpoint that was ever taken away.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
    path::Path,
    sync::{Arc, Mutex},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use diolkos_istio::{Kind, Object, label};
use diolkos_testkit::HttpFault;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::truth::{SharedEnds, lock};

/// Objects by kind, namespace and name: their labels and what they say.
pub(crate) type Objects = BTreeMap<String, Value>;

/// An object as it should be there.
pub(crate) fn wanted(object: &Object) -> (String, Value) {
    let name = object.key.to_string();
    (name, json!({"labels": object.labels, "spec": object.spec}))
}

/// An object as it is there.
fn found(manifest: &Value) -> (String, Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &manifest["metadata"];
    let (namespace, name) = (text(&metadata["namespace"]), text(&metadata["name"]));
    let name = format!("{} {namespace}/{name}", text(&manifest["kind"]));
    let object = json!({"labels": metadata["labels"], "spec": manifest["spec"]});
    (name, object)
}

/// The addresses of an object's endpoints.
fn addresses(object: &Value) -> BTreeSet<String> {
    let spec = &object["spec"];
    let inline = spec["endpoints"].as_array().into_iter().flatten();
    let all = inline.chain([spec]).filter_map(|e| e["address"].as_str());
    all.map(str::to_owned).collect()
}

/// What is there of one sequence. Everything that it is told is compared with the ends in the registry.
pub(crate) struct Mesh {
    began: Instant,
    ends: SharedEnds,
    pub(crate) objects: Objects,
    removals: BTreeMap<String, u32>,
    /// Endpoints and services that were taken away while they lived.
    pub(crate) violations: Vec<String>,
    /// What happened, for people.
    pub(crate) history: Vec<String>,
    /// The registry is taken out of the configuration: all may go.
    pub(crate) retired: bool,
}

/// Shared between who is told and who asks.
pub(crate) type SharedMesh = Arc<Mutex<Mesh>>;

impl Mesh {
    pub(crate) fn new(ends: SharedEnds) -> SharedMesh {
        Arc::new(Mutex::new(Self {
            began: Instant::now(),
            ends,
            objects: Objects::new(),
            removals: BTreeMap::new(),
            violations: Vec::new(),
            history: Vec::new(),
            retired: false,
        }))
    }

    /// Adds a line to the history.
    pub(crate) fn note(&mut self, line: &str) {
        let at = self.began.elapsed().as_millis();
        self.history.push(format!("{at:>6} ms  {line}"));
    }

    /// The addresses of all endpoints.
    pub(crate) fn endpoints(&self) -> BTreeSet<String> {
        self.objects.values().flat_map(addresses).collect()
    }

    /// How much was taken away so far.
    pub(crate) fn removals(&self) -> usize {
        self.removals.values().map(|count| *count as usize).sum()
    }

    /// An object is there, or gone.
    pub(crate) fn told(&mut self, name: &str, object: Option<Value>) {
        if self.objects.get(name) == object.as_ref() {
            return;
        }
        let before = self.endpoints();
        let (was, is) = (self.objects.contains_key(name), object.is_some());
        let host = |object: &Value| object["spec"]["hosts"][0].as_str().map(str::to_owned);
        let host = self.objects.get(name).and_then(host);
        let shown: Vec<_> = object.iter().flat_map(addresses).collect();
        match object {
            Some(object) => self.objects.insert(name.to_owned(), object),
            None => self.objects.remove(name),
        };
        self.note(&format!(
            "mesh: {name} {}",
            if is {
                format!("{shown:?}")
            } else {
                "gone".into()
            }
        ));
        let ends = self.ends.clone();
        let ends = lock(&ends);
        let now = self.endpoints();
        for address in before.difference(&now) {
            let count = ends.instances.get(address).copied().unwrap_or_default();
            self.removed(address, count);
        }
        if let (Some(host), true, false) = (host, was, is) {
            let count = ends.services.get(&host).copied().unwrap_or_default();
            self.removed(&host, count);
        }
    }

    /// Something was taken away that has ended so often in the registry.
    fn removed(&mut self, what: &str, ends: u32) {
        if self.retired {
            return;
        }
        let removals = self.removals.entry(what.to_owned()).or_default();
        *removals += 1;
        if *removals > ends {
            let line = format!(
                "{what} was taken out of the mesh {removals} times, and has ended in the registry {ends} times"
            );
            self.note(&format!("VIOLATION: {line}"));
            self.violations.push(line);
        }
    }

    /// Reads a directory. To be called after every write to it.
    pub(crate) fn look(&mut self, directory: &Path) -> Result<()> {
        let mut there = Objects::new();
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "yaml") {
                continue;
            }
            let text = match std::fs::read_to_string(&path) {
                // It went since it was listed.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                read => read?,
            };
            let manifest: Value = serde_saphyr::from_str(&text)
                .with_context(|| format!("{}: {text}", path.display()))?;
            there.extend([found(&manifest)]);
        }
        let gone = self
            .objects
            .keys()
            .filter(|name| !there.contains_key(*name));
        for name in gone.cloned().collect::<Vec<_>>() {
            self.told(&name, None);
        }
        for (name, object) in there {
            self.told(&name, Some(object));
        }
        Ok(())
    }
}

/// Watches the API server for all sequences.
#[derive(Clone, Default)]
pub(crate) struct Watches {
    meshes: Arc<Mutex<BTreeMap<String, SharedMesh>>>,
    /// Why a watch has ended, if one has.
    ended: Arc<Mutex<Option<String>>>,
}

impl Watches {
    /// Begins to watch, through a proxy without rules.
    pub(crate) fn start(&self, door: &HttpFault) -> Vec<JoinHandle<()>> {
        let start = |kind: Kind| {
            let url = format!(
                "{}/apis/{}/{}?watch=true",
                door.url(),
                Kind::API_VERSION,
                kind.plural()
            );
            let watches = self.clone();
            tokio::spawn(async move {
                let ended = watches.follow(&url).await;
                *lock(&watches.ended) = Some(format!("{url}: {ended:?}"));
            })
        };
        Kind::ALL.map(start).into()
    }

    /// From now on the mesh is told of the objects of a registry.
    pub(crate) fn add(&self, registry: &str, mesh: &SharedMesh) {
        lock(&self.meshes).insert(registry.to_owned(), mesh.clone());
    }

    /// # Errors
    /// If a watch has ended: what is known is not all there is.
    pub(crate) fn healthy(&self) -> Result<()> {
        match &*lock(&self.ended) {
            Some(why) => bail!("a watch of the test itself has ended: {why}"),
            None => Ok(()),
        }
    }

    async fn follow(&self, url: &str) -> Result<()> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let mut answer = client.get(url).send().await?.error_for_status()?;
        let mut buffer: Vec<u8> = Vec::new();
        while let Some(piece) = answer.chunk().await? {
            buffer.extend_from_slice(&piece);
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                self.event(&serde_json::from_slice(&line)?)?;
            }
        }
        bail!("the answer ended")
    }

    fn event(&self, event: &Value) -> Result<()> {
        let (kind, manifest) = (event["type"].as_str(), &event["object"]);
        let (name, object) = found(manifest);
        let registry = manifest["metadata"]["labels"][label::REGISTRY].as_str();
        let mesh = registry.and_then(|registry| lock(&self.meshes).get(registry).cloned());
        let Some(mesh) = mesh else {
            return Ok(());
        };
        match kind {
            Some("ADDED" | "MODIFIED") => lock(&mesh).told(&name, Some(object)),
            Some("DELETED") => lock(&mesh).told(&name, None),
            _ => bail!("{event}"),
        }
        Ok(())
    }
}
