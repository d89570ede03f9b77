//! The protocols that Istio knows: `pkg/config/protocol`.

/// A protocol of a service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it all")]
pub enum Protocol {
    Tcp,
    Udp,
    Grpc,
    GrpcWeb,
    Http,
    HttpProxy,
    Http2,
    Https,
    Tls,
    Mongo,
    Redis,
    Mysql,
}

impl Protocol {
    /// Everything that `protocol.Parse` knows.
    pub const ALL: [Self; 12] = [
        Self::Tcp,
        Self::Udp,
        Self::Grpc,
        Self::GrpcWeb,
        Self::Http,
        Self::HttpProxy,
        Self::Http2,
        Self::Https,
        Self::Tls,
        Self::Mongo,
        Self::Redis,
        Self::Mysql,
    ];

    /// The spelling of `ServicePort.protocol`, in upper case. Istio reads any case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Grpc => "GRPC",
            Self::GrpcWeb => "GRPC-WEB",
            Self::Http => "HTTP",
            Self::HttpProxy => "HTTP_PROXY",
            Self::Http2 => "HTTP2",
            Self::Https => "HTTPS",
            Self::Tls => "TLS",
            Self::Mongo => "MONGO",
            Self::Redis => "REDIS",
            Self::Mysql => "MYSQL",
        }
    }

    /// Whether proxies read the HTTP inside (`IsHTTP`), so that hosts can share the port. Not
    /// `HTTPS`, which passes through encrypted.
    #[must_use]
    pub fn http_family(self) -> bool {
        matches!(
            self,
            Self::Http | Self::Http2 | Self::HttpProxy | Self::Grpc | Self::GrpcWeb
        )
    }

    /// Whether proxies read the TLS server name (`IsTLS`), so that hosts can share the port.
    #[must_use]
    pub fn tls_family(self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }
}

/// The protocol of that name, in any case. Istio also takes the empty name, for a port whose
/// protocol its proxies have to detect; it is `None` here.
#[must_use]
pub fn protocol(name: &str) -> Option<Protocol> {
    Protocol::ALL
        .into_iter()
        .find(|protocol| protocol.as_str().eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_any_case() {
        for known in Protocol::ALL {
            assert_eq!(protocol(known.as_str()), Some(known));
            assert_eq!(protocol(&known.as_str().to_lowercase()), Some(known));
        }
        for unknown in [
            "",
            "dubbo",
            "HBONE",
            "DoubleHBONE",
            "http ",
            "http-proxy",
            "sctp",
        ] {
            assert_eq!(protocol(unknown), None, "{unknown:?}");
        }
    }

    #[test]
    fn families() {
        let of = |family: fn(Protocol) -> bool| {
            Protocol::ALL
                .into_iter()
                .filter(|one| family(*one))
                .map(Protocol::as_str)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            of(Protocol::http_family),
            ["GRPC", "GRPC-WEB", "HTTP", "HTTP_PROXY", "HTTP2"]
        );
        assert_eq!(of(Protocol::tls_family), ["HTTPS", "TLS"]);
    }
}
