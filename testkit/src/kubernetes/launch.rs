//! The command lines of etcd, the API server and the controllers.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use rcgen::KeyPair;
use serde_json::{Value, json};

use super::{Builder, Kubernetes, START, audit};
use crate::home::Home;
use crate::pki::{Authority, TlsFiles, Usage};
use crate::ports::{self, Port};
use crate::process::{Process, Spec};
use crate::programs::{data, program};

const ADMIN: &str = "admin";
const CONTROLLER_MANAGER: &str = "system:kube-controller-manager";
const SCHEDULER: &str = "system:kube-scheduler";
/// The names and addresses under which pods would reach the API server, beside loopback.
const API_SERVER_NAMES: [&str; 4] = [
    "127.0.0.1",
    "10.96.0.1",
    "localhost",
    "kubernetes.default.svc",
];

pub(super) fn audit_log(home: &Home) -> PathBuf {
    home.log("audit")
}

pub(super) fn kubeconfig_path(home: &Home, user: &str) -> PathBuf {
    home.data().join(format!("{user}.kubeconfig"))
}

/// The files that the servers share.
struct Files {
    ca: PathBuf,
    ca_key: PathBuf,
    api_server: TlsFiles,
    admin: TlsFiles,
    service_account_key: PathBuf,
    service_account_public: PathBuf,
    tokens: PathBuf,
    audit_policy: PathBuf,
}

pub(super) async fn launch(options: &Builder) -> Result<Kubernetes> {
    let kubectl = program("kubectl")?;
    let home = Home::new("kubernetes")?;
    let [api_port, etcd_port, peer_port] = ports::free()?;
    let files = write_files(&home, &api_port, &options.users)?;
    let (roots, identity) = files.admin.load()?;
    let client = crate::http_client([roots], Some(identity))?;
    let etcd = start_etcd(&home, &etcd_port, &peer_port).await?;
    let api_server = Process::start(
        api_server(&home, &files, &api_port, &etcd_port)?.args(&options.api_server_args),
    )?;
    let mut kubernetes = Kubernetes {
        others: Vec::new(),
        api_server,
        _etcd: etcd,
        client,
        admin: files.admin.clone(),
        port: api_port,
        other_ports: vec![etcd_port, peer_port],
        kubectl,
        kubeconfig: kubeconfig_path(&home, ADMIN),
        home,
    };
    kubernetes.ready().await?;
    if options.controller_manager {
        start_controller_manager(&mut kubernetes, &files).await?;
    }
    if options.nodes > 0 {
        start_nodes(&mut kubernetes, options.nodes).await?;
    }
    Ok(kubernetes)
}

fn write_files(home: &Home, port: &Port, users: &[(String, Vec<String>)]) -> Result<Files> {
    let authority = Authority::new(home)?;
    let api_server = authority.sign(
        "apiserver",
        ("kube-apiserver", None),
        &API_SERVER_NAMES,
        Usage::Server,
    )?;
    let admin = authority.sign(ADMIN, (ADMIN, Some("system:masters")), &[], Usage::Client)?;
    write_kubeconfig(home, ADMIN, port, &admin.ca, &certificate_user(&admin))?;
    for name in [CONTROLLER_MANAGER, SCHEDULER] {
        let client = authority.sign(name, (name, None), &[], Usage::Client)?;
        write_kubeconfig(home, name, port, &client.ca, &certificate_user(&client))?;
    }
    let mut tokens = String::new();
    for (index, (name, groups)) in users.iter().enumerate() {
        tokens += &format!("{name}-token,{name},{index},\"{}\"\n", groups.join(","));
        write_kubeconfig(
            home,
            name,
            port,
            authority.cert(),
            &json!({"token": format!("{name}-token")}),
        )?;
    }
    let service_accounts = KeyPair::generate()?;
    Ok(Files {
        ca: authority.cert().to_owned(),
        ca_key: authority.key().to_owned(),
        api_server,
        admin,
        service_account_key: home
            .write("service-accounts.key", service_accounts.serialize_pem())?,
        service_account_public: home
            .write("service-accounts.pub", service_accounts.public_key_pem())?,
        tokens: home.write("tokens.csv", tokens)?,
        audit_policy: home.write("audit-policy.json", audit::POLICY)?,
    })
}

fn certificate_user(files: &TlsFiles) -> Value {
    json!({"client-certificate": files.cert, "client-key": files.key})
}

fn write_kubeconfig(
    home: &Home,
    user: &str,
    port: &Port,
    ca: &Path,
    credentials: &Value,
) -> Result<()> {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {
            "server": format!("https://{}", port.address()), "certificate-authority": ca,
        }}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
    });
    home.write(&format!("{user}.kubeconfig"), config.to_string())
        .map(drop)
}

/// A kubeconfig without credentials, for a proxy that has its own.
pub(super) fn write_plain_kubeconfig(home: &Home, address: SocketAddr) -> Result<PathBuf> {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "nobody", "user": {}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "nobody"}}],
    });
    home.write(
        &format!("through-{}.kubeconfig", address.port()),
        config.to_string(),
    )
}

async fn start_etcd(home: &Home, client: &Port, peer: &Port) -> Result<Process> {
    let client = format!("http://{}", client.address());
    let peer = format!("http://{}", peer.address());
    let spec = Spec::new("etcd", program("etcd")?, home.log("etcd"))
        .arg("--data-dir")
        .arg(home.data().join("etcd"))
        .args([
            "--listen-client-urls",
            &client,
            "--advertise-client-urls",
            &client,
        ])
        .args([
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
        ])
        .args([
            "--initial-cluster",
            &format!("default={peer}"),
            "--unsafe-no-fsync",
        ]);
    let etcd = Process::start(spec)?;
    let http = crate::http_client([], None)?;
    let healthy = async || crate::body_of(http.get(format!("{client}/health")).send().await?).await;
    etcd.ready(START, healthy).await?;
    Ok(etcd)
}

fn api_server(home: &Home, files: &Files, port: &Port, etcd: &Port) -> Result<Spec> {
    let file = |flag: &str, path: &Path| format!("--{flag}={}", path.display());
    Ok(Spec::new(
        "kube-apiserver",
        program("kube-apiserver")?,
        home.log("kube-apiserver"),
    )
    .arg(format!("--etcd-servers=http://{}", etcd.address()))
    .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"])
    .arg(format!("--secure-port={port}"))
    .args([
        file("tls-cert-file", &files.api_server.cert),
        file("tls-private-key-file", &files.api_server.key),
    ])
    .args([
        file("client-ca-file", &files.ca),
        file("token-auth-file", &files.tokens),
    ])
    .arg(file(
        "service-account-key-file",
        &files.service_account_public,
    ))
    .arg(file(
        "service-account-signing-key-file",
        &files.service_account_key,
    ))
    .arg("--service-account-issuer=https://kubernetes.default.svc.cluster.local")
    .args([
        "--authorization-mode=RBAC",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--allow-privileged=true",
    ])
    // A loopback address is not accepted in Endpoints.
    .arg("--endpoint-reconciler-type=none")
    .args([
        file("audit-policy-file", &files.audit_policy),
        file("audit-log-path", &audit_log(home)),
    ])
    // `blocking` writes each record before the next request of the connection; a size (MB) stops the rotation
    // at 100 MB.
    .args(["--audit-log-mode=blocking", "--audit-log-maxsize=10000"]))
}

async fn start_controller_manager(kubernetes: &mut Kubernetes, files: &Files) -> Result<()> {
    let home = &kubernetes.home;
    let file = |flag: &str, path: &Path| format!("--{flag}={}", path.display());
    let name = "kube-controller-manager";
    let spec = Spec::new(name, program(name)?, home.log(name))
        .arg(file(
            "kubeconfig",
            &kubeconfig_path(home, CONTROLLER_MANAGER),
        ))
        .arg(file(
            "service-account-private-key-file",
            &files.service_account_key,
        ))
        .args([
            file("root-ca-file", &files.ca),
            file("cluster-signing-cert-file", &files.ca),
        ])
        .arg(file("cluster-signing-key-file", &files.ca_key))
        .args([
            "--use-service-account-credentials=true",
            "--leader-elect=false",
            "--secure-port=0",
        ]);
    let process = Process::start(spec)?;
    let path = "/api/v1/namespaces/default/serviceaccounts/default";
    process
        .ready(START, async || kubernetes.get(path).await)
        .await?;
    kubernetes.others.push(process);
    Ok(())
}

async fn start_nodes(kubernetes: &mut Kubernetes, count: usize) -> Result<()> {
    let home = &kubernetes.home;
    let [kwok_port] = ports::free()?;
    let scheduler = Spec::new(
        "kube-scheduler",
        program("kube-scheduler")?,
        home.log("kube-scheduler"),
    )
    .arg("--kubeconfig")
    .arg(kubeconfig_path(home, SCHEDULER))
    .args(["--leader-elect=false", "--secure-port=0"]);
    let kwok = Spec::new("kwok", program("kwok")?, home.log("kwok"))
        .arg("--kubeconfig")
        .arg(kubernetes.kubeconfig())
        .arg("--config")
        .arg(data("kwok-stages.yaml")?)
        .args([
            "--manage-all-nodes=true",
            "--node-ip=127.0.0.1",
            "--cidr=10.64.0.0/16",
        ])
        .arg(format!("--server-address={}", kwok_port.address()));
    let (scheduler, kwok) = (Process::start(scheduler)?, Process::start(kwok)?);
    let nodes: Vec<Value> = (1..=count).map(node).collect();
    kubernetes
        .apply(&json!({"apiVersion": "v1", "kind": "List", "items": nodes}).to_string())
        .await?;
    let wait = [
        "wait",
        "--for=condition=Ready",
        "node",
        "--all",
        "--timeout=1s",
    ];
    kwok.ready(Duration::from_secs(60), async || {
        kubernetes.kubectl(&wait).await
    })
    .await?;
    kubernetes.others.extend([scheduler, kwok]);
    kubernetes.other_ports.push(kwok_port);
    Ok(())
}

fn node(number: usize) -> Value {
    let name = format!("fake-{number}");
    let size = json!({"cpu": "32", "memory": "256Gi", "pods": "110"});
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "annotations": {"kwok.x-k8s.io/node": "fake"}, "labels": {
            "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "type": "kwok",
            "topology.kubernetes.io/region": "r1", "topology.kubernetes.io/zone": format!("z{number}"),
        }},
        "status": {"allocatable": size, "capacity": size},
    })
}
