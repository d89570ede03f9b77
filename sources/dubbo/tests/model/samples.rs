//! What real Dubbo 3.3 and 2.7 providers left in a real ZooKeeper.

use diolkos_source_dubbo::{Discovery, Options, Variants};

use crate::support::{Tree, options, text};

fn services(options: Options) -> String {
    text(&Tree::sample().catalog(options).snapshot())
}

#[test]
fn variants_as_labels() {
    insta::assert_snapshot!(services(options()));
}

#[test]
fn variants_as_hosts() {
    insta::assert_snapshot!(services(Options {
        variants: Variants::Hosts,
        ..options()
    }));
}

#[test]
fn interfaces_only() {
    insta::assert_snapshot!(services(Options {
        discovery: Discovery::Interface,
        ..options()
    }));
}

#[test]
fn applications_only() {
    insta::assert_snapshot!(services(Options {
        discovery: Discovery::Application,
        ..options()
    }));
}

#[test]
fn as_dubbo2istio() {
    insta::assert_snapshot!(services(Options {
        variants: Variants::Hosts,
        discovery: Discovery::Interface,
        aeraki: true,
        ..options()
    }));
}
