//! Our verdicts against those of the programs that have the last word: `istioctl validate`, which runs
//! the rules of istiod's webhook, and an API server with Istio's CRDs.
#![allow(clippy::expect_used, clippy::panic)]

mod samples;

use std::{
    collections::BTreeSet,
    env,
    fmt::Write as _,
    io::Write as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::Arc,
    thread,
};

use diolkos_istio::{
    Object, ObjectKey,
    validate::{self, Violation},
};
use diolkos_testkit::Kubernetes;

/// Runs a program of the test bed on `input`.
fn run(program: &str, args: &[&str], input: &str) -> Output {
    let testbed = env::var_os("DIOLKOS_TESTBED").map_or_else(
        || {
            let home = env::var_os("HOME").expect("DIOLKOS_TESTBED or HOME is set");
            PathBuf::from(home).join(".cache/diolkos-testbed")
        },
        PathBuf::from,
    );
    let path = testbed.join("bin").join(program);
    let mut child = Command::new(&path)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            let path = path.display();
            panic!("{path} does not start ({error}): run `testbed/setup`, then the test again")
        });
    let mut stdin = child.stdin.take().expect("stdin is piped");
    thread::scope(|scope| {
        // The program may write before it has read everything.
        scope.spawn(move || {
            stdin
                .write_all(input.as_bytes())
                .expect("the program reads its input");
        });
        child.wait_with_output().expect("the program ends")
    })
}

/// One YAML document an object. Control characters that YAML does not take raw are escaped.
fn documents(objects: &[Object]) -> String {
    let mut text = String::new();
    for object in objects {
        text.push_str("---\n");
        for char in object.manifest().to_string().chars() {
            match char {
                '\u{7f}'..='\u{9f}' => text.push_str(&format!("\\u{:04x}", u32::from(char))),
                _ => text.push(char),
            }
        }
        text.push('\n');
    }
    text
}

/// The objects that istioctl refuses, as `KIND/NAMESPACE/NAME`.
///
/// It goes on after an error, and lists them all after `Error:`, as `\t* KIND/NAMESPACE/NAME: message`.
fn refused_by_istioctl(objects: &[Object]) -> BTreeSet<String> {
    let output = run("istioctl", &["validate", "-f", "-"], &documents(objects));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        !text.contains("failed to decode"),
        "istioctl stopped early: {text}"
    );
    let (_, errors) = text
        .split_once("Error: ")
        .unwrap_or_else(|| panic!("istioctl found no error: {text}"));
    errors
        .lines()
        .filter_map(|line| line.strip_prefix("\t* "))
        .filter_map(|line| line.split_once(": "))
        .map(|(name, _)| name.to_owned())
        .collect()
}

fn name_in_istioctl(key: &ObjectKey) -> String {
    format!("{}/{}/{}", key.kind, key.namespace, key.name)
}

/// The names of the objects that a server-side apply accepts: what the sink does, as a dry run.
fn accepted_by_api_server(objects: &[Object], kubeconfig: &str) -> BTreeSet<Arc<str>> {
    let items: Vec<_> = objects.iter().map(Object::manifest).collect();
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items});
    let args = [
        "--kubeconfig",
        kubeconfig,
        "apply",
        "--server-side",
        "--dry-run=server",
        "-o",
        "name",
        "-f",
        "-",
    ];
    let output = run("kubectl", &args, &list.to_string());
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.split_once('/'))
        .map(|(_, name)| name.into())
        .collect()
}

/// Rules that the API server has (CRD, metadata) and istiod has not.
fn only_the_api_server_has(violation: &Violation) -> bool {
    if let Violation::At { field, .. } = violation
        && field.starts_with("metadata.")
    {
        return true;
    }
    match violation.rule() {
        // Of all lengths, istiod looks at that of DNS names alone.
        Violation::TooLong { limit, .. } => *limit != validate::limit::DNS_NAME,
        // istiod lets the name of an abstract socket end in `/`.
        Violation::UnixAddress { address } => address.starts_with("unix://@"),
        rule => matches!(
            rule,
            Violation::TooMany { .. } | Violation::AnnotationsTooLarge { .. }
        ),
    }
}

/// Fails with every object on which `verdict` and `theirs`, who accept it or not, differ.
fn agree(
    objects: &[Object],
    verdict: impl Fn(&[Violation]) -> bool,
    theirs: impl Fn(&ObjectKey) -> bool,
) {
    let (mut wrong, mut accepted) = (String::new(), 0);
    for object in objects {
        let violations = validate::object(object);
        let they_accept = theirs(&object.key);
        accepted += usize::from(they_accept);
        if verdict(&violations) != they_accept {
            let manifest = object.manifest();
            writeln!(
                wrong,
                "they accept: {they_accept}, we say {violations:?}: {manifest}"
            )
            .expect("a String takes everything");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    let refused = objects.len() - accepted;
    assert!(
        accepted.min(refused) > objects.len() / 4,
        "the samples are one-sided: {accepted} accepted, {refused} refused"
    );
}

#[test]
fn istioctl_and_we_agree() {
    let objects = samples::samples();
    let refused = refused_by_istioctl(&objects);
    agree(
        &objects,
        |violations| violations.iter().all(only_the_api_server_has),
        |key| !refused.contains(&name_in_istioctl(key)),
    );
}

#[tokio::test]
async fn what_both_the_api_server_and_istiod_accept_is_what_we_accept() {
    let kubernetes = Kubernetes::builder()
        .without_controller_manager()
        .start()
        .await
        .expect("the API server starts");
    kubernetes
        .install_istio_crds()
        .await
        .expect("the CRDs are installed");
    let kubeconfig = kubernetes.kubeconfig().to_str().expect("the path is UTF-8");
    let objects = samples::samples();
    let accepted = accepted_by_api_server(&objects, kubeconfig);
    let refused = refused_by_istioctl(&objects);
    agree(&objects, <[Violation]>::is_empty, |key| {
        accepted.contains(&key.name) && !refused.contains(&name_in_istioctl(key))
    });
}
