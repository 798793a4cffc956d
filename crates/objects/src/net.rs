//! IPv4 networks.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// An IPv4 network, such as `10.144.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ipv4Net {
    base: u32,
    prefix: u8,
}

/// The text is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an IPv4 network such as 10.144.0.0/16")]
pub struct NetError(String);

impl Ipv4Net {
    /// The network of `address` with `prefix` bits (at most 32).
    #[must_use]
    pub fn new(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = prefix.min(32);
        Self { base: address.to_bits() & mask(prefix), prefix }
    }

    /// The first address.
    #[must_use]
    pub fn network(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base)
    }

    /// The number of bits that are fixed.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// How many addresses it holds.
    #[must_use]
    pub fn size(&self) -> u64 {
        1 << (32 - u32::from(self.prefix))
    }

    /// The address at `offset` from the first.
    #[must_use]
    pub fn nth(&self, offset: u64) -> Option<Ipv4Addr> {
        let offset = u32::try_from(offset).ok().filter(|o| u64::from(*o) < self.size())?;
        Some(Ipv4Addr::from_bits(self.base + offset))
    }

    /// Is the address inside?
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.base
    }

    /// Do both hold some address?
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let mask = mask(self.prefix.min(other.prefix));
        self.base & mask == other.base & mask
    }

    /// The `index`-th network with `prefix` bits inside this one.
    #[must_use]
    pub fn subnet(&self, prefix: u8, index: u64) -> Option<Self> {
        if prefix < self.prefix || prefix > 32 {
            return None;
        }
        let step = 1u64 << (32 - u32::from(prefix));
        let address = self.nth(index.checked_mul(step)?)?;
        Some(Self::new(address, prefix))
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl FromStr for Ipv4Net {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        let bad = || NetError(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let address: Ipv4Addr = address.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().ok().filter(|p| *p <= 32).ok_or_else(bad)?;
        Ok(Self::new(address, prefix))
    }
}

impl fmt::Display for Ipv4Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::Ipv4Net;

    #[test]
    fn networks_overlap_when_one_holds_the_other() {
        let net = |text: &str| text.parse::<Ipv4Net>().unwrap();
        let (wide, narrow) = (net("10.144.0.0/16"), net("10.144.3.0/24"));
        assert!(wide.overlaps(&narrow) && narrow.overlaps(&wide));
        assert!(!narrow.overlaps(&net("10.144.4.0/24")));
        assert!(net("0.0.0.0/0").overlaps(&narrow));
    }
}
