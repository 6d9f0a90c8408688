//! Where a slave is, and which key it has to show, if that was said: `HOST#SHA256:...`.
//!
//! The address alone is `-c HOST`, `-c HOST:PORT`, `-c [v6]:PORT`, or a path for an embedded one.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use tdfs_host::key::Fingerprint;

/// The port where none is given.
pub const PORT: u16 = 8337;

/// Where a slave is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SlaveAddress {
    /// A daemon on some machine.
    Network {
        /// Name or number, without brackets.
        host: String,
        /// Its port.
        port: u16,
    },
    /// The slave's code inside this process, on this (absolute) directory.
    Embedded(PathBuf),
}

/// A slave as a user names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedSlave {
    /// Where it is.
    pub address: SlaveAddress,
    /// The key that it has to show.
    pub key: Option<Fingerprint>,
}

impl FromStr for NamedSlave {
    type Err = String;

    fn from_str(text: &str) -> Result<NamedSlave, String> {
        // A path may have a # in it.
        match text.split_once('#').filter(|_| !is_path(text)) {
            Some((address, key)) => Ok(NamedSlave { address: address.parse()?, key: Some(key.parse()?) }),
            None => Ok(NamedSlave { address: text.parse()?, key: None }),
        }
    }
}

impl fmt::Display for NamedSlave {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        self.key.map_or(Ok(()), |key| write!(f, "#{key}"))
    }
}

fn is_path(text: &str) -> bool {
    ["/", "./", "../"].iter().any(|start| text.starts_with(start)) || text == "." || text == ".."
}

impl FromStr for SlaveAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<SlaveAddress, String> {
        if is_path(text) {
            let path = std::path::absolute(text).map_err(|e| format!("{text}: {e}"))?;
            return Ok(SlaveAddress::Embedded(path));
        }
        let (host, port) = split(text)?;
        let port = match port {
            Some(port) => port.parse().map_err(|_| format!("{port:?} is no port, in {text:?}"))?,
            None => PORT,
        };
        if host.is_empty() || port == 0 || host.contains(char::is_whitespace) || host.contains(['/', '#']) {
            let hint = "write HOST, HOST:PORT, [IPV6]:PORT, or a path that begins with / ./ or ../";
            return Err(format!("{text:?} is no address of a slave: {hint}"));
        }
        Ok(SlaveAddress::Network { host: host.to_owned(), port })
    }
}

fn split(text: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(|| format!("a ] is missing in {text:?}"))?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(format!("{rest:?} after the ] of {text:?}")),
        };
    }
    match text.split_once(':') {
        Some((_, port)) if port.contains(':') => {
            Err(format!("an IPv6 address needs brackets: [{text}] or [{text}]:{PORT}"))
        }
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((text, None)),
    }
}

impl fmt::Display for SlaveAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SlaveAddress::Network { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            SlaveAddress::Network { host, port } => write!(f, "{host}:{port}"),
            SlaveAddress::Embedded(path) => write!(f, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{NamedSlave, SlaveAddress};

    #[test]
    fn addresses_are_read_and_shown() {
        for (text, shown) in [
            ("slave", "slave:8337"),
            ("10.0.0.1:9000", "10.0.0.1:9000"),
            ("[::1]:9000", "[::1]:9000"),
            ("[fe80::1%eth0]", "[fe80::1%eth0]:8337"),
            ("/backup/data", "/backup/data"),
        ] {
            assert_eq!(text.parse::<SlaveAddress>().unwrap().to_string(), shown);
        }
        let key = "SHA256:RFMxmM5TVbzdCTHbGPU0BFJZGpeR7VYUQBB+hQIPJJ4";
        let named: NamedSlave = format!("slave#{key}").parse().unwrap();
        assert_eq!((named.key, named.to_string()), (key.parse().ok(), format!("slave:8337#{key}")));
        assert_eq!("/a#b".parse::<NamedSlave>().unwrap().key, None);
        assert!("slave#x".parse::<NamedSlave>().unwrap_err().contains("no fingerprint"));
        let here = std::env::current_dir().unwrap().join("m");
        assert_eq!("./m".parse(), Ok(SlaveAddress::Embedded(here)));
        for bad in ["", "h#x", ":1", "h:", "h:x", "h:0", "h:70000", "::1", "[::1", "[::1]x", "a b", "a/b"] {
            assert!(bad.parse::<SlaveAddress>().is_err(), "{bad:?}");
        }
    }
}
