//! Any service, out of any bytes.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ::arbitrary::{Result, Unstructured};
use diolkos_model::{
    Address, Health, Instance, Interner, Labels, Locality, Port, Service, ServiceKey, Weight,
};

/// Texts that are easily got wrong somewhere: as names, hosts, ports, labels, versions.
const ODD: &[&str] = &[
    "",
    "web",
    "Web_Service",
    "a.b",
    "a..b",
    ".",
    "-",
    "*",
    "*.a",
    "é",
    "ａ",
    "\u{0}",
    "\n",
    " ",
    "a b",
    "x/y",
    "/",
    "a/b/c",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "KUBERNETES.default.SVC.cluster.local.",
    "localhost",
    "10.0.0.1",
    "1",
    "0",
    "http",
    "HTTP",
    "grpc-web",
    "https",
    "tcp",
    "udp",
    "mysql",
    "tls",
    "dubbo",
    "protocol",
    "tags",
    "version",
    "team",
    "istio.io/rev",
    "Istio.IO/rev",
    " istio.io/rev",
    "-istio.io/rev",
    "istio.io./rev",
    "istio_io/rev",
    "security.istio.io/tlsMode",
    "topology.istio.io/network",
    "sidecar.istio.io/inject",
    "app.kubernetes.io/managed-by",
    "diolkos.io/service",
    "diolkos.io/registry",
    "topology.k8s.io/zone",
    "pod-template-hash",
    "true",
    "null",
    "~",
    "- a",
    "a: b",
    "{service}",
    "v1",
    "v1.2.3",
];

const LONG: usize = 300;

/// Reads odd things from bytes.
pub(crate) struct Reader<'a> {
    pub(crate) bytes: Unstructured<'a>,
    interner: Interner,
}

/// The service that these bytes stand for. Bytes that are missing count as zero.
pub(crate) fn service(bytes: &[u8]) -> Service {
    Reader::new(bytes).service().unwrap_or_else(|_| {
        let key = super::key("nothing");
        Service::new(key, [].into(), Vec::new())
    })
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes: Unstructured::new(bytes),
            interner: Interner::new(),
        }
    }

    fn service(&mut self) -> Result<Service> {
        let key = ServiceKey {
            registry: "registry".into(),
            namespace: self.text()?,
            group: self.text()?,
            name: self.text()?,
        };
        let meta = self.labels()?;
        let mut instances = Vec::new();
        while !self.bytes.is_empty() && instances.len() < 40 {
            instances.push(self.instance()?);
        }
        Ok(Service::new(key, meta, instances))
    }

    /// Easily got wrong, or any.
    pub(crate) fn text(&mut self) -> Result<Arc<str>> {
        Ok(match self.bytes.int_in_range(0u8..=9)? {
            0..=5 => (*self.bytes.choose(ODD)?).into(),
            6 => {
                let (one, two) = (self.bytes.choose(ODD)?, self.bytes.choose(ODD)?);
                format!("{one}{two}").into()
            }
            7 => self.bytes.choose(ODD)?.repeat(LONG).into(),
            _ => self.bytes.arbitrary::<&str>()?.into(),
        })
    }

    fn option<T>(&mut self, some: impl FnOnce(&mut Self) -> Result<T>) -> Result<Option<T>> {
        Ok(match self.bytes.arbitrary()? {
            true => Some(some(self)?),
            false => None,
        })
    }

    fn labels(&mut self) -> Result<Labels> {
        let mut pairs = Vec::new();
        for _ in 0..self.bytes.int_in_range(0u8..=4)? {
            pairs.push((self.text()?, self.text()?));
        }
        let pairs = pairs.iter().map(|(key, value)| (&**key, &**value));
        Ok(self.interner.labels(pairs))
    }

    fn address(&mut self) -> Result<Address> {
        Ok(match self.bytes.int_in_range(0u8..=7)? {
            0 => Address::Name(self.text()?),
            1 => Address::Ip(Ipv6Addr::from(self.bytes.arbitrary::<u128>()?).into()),
            2 => {
                let v4 = Ipv4Addr::from(self.bytes.arbitrary::<u32>()?);
                Address::Ip(IpAddr::V6(v4.to_ipv6_mapped()))
            }
            3 => Address::Ip(Ipv4Addr::from(self.bytes.arbitrary::<u32>()?).into()),
            _ => Address::Ip(Ipv4Addr::new(10, 0, 0, self.bytes.arbitrary()?).into()),
        })
    }

    fn port(&mut self) -> Result<Port> {
        let number = match self.bytes.int_in_range(0u8..=5)? {
            0 => self.bytes.arbitrary()?,
            _ => self.bytes.arbitrary::<u16>()?.into(),
        };
        Ok(Port {
            name: self.text()?,
            number,
            protocol: self.option(Self::text)?,
        })
    }

    fn instance(&mut self) -> Result<Instance> {
        let mut ports = Vec::new();
        for _ in 0..self.bytes.int_in_range(0u8..=3)? {
            ports.push(self.port()?);
        }
        Ok(Instance {
            id: self.text()?,
            address: self.address()?,
            ports: ports.into(),
            health: match self.bytes.ratio(1u8, 8u8)? {
                true => Health::Unhealthy(self.text()?),
                false => Health::Healthy,
            },
            weight: self.option(|it| it.bytes.arbitrary().map(Weight))?,
            locality: Locality {
                region: self.text()?,
                zone: self.text()?,
                sub_zone: self.text()?,
            },
            version: self.option(Self::text)?,
            labels: self.labels()?,
        })
    }
}
