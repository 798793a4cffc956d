//! What Services are allotted: cluster addresses and node ports.
//!
//! Each allotment is a key of its own, taken and released in the transaction that writes the
//! Service, so that two Services never hold the same one.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use bytes::Bytes;
use quorate_objects::{FieldError, Invalid, Kind, kinds};
use quorate_store::KeyValue;
use serde_json::Value;

use crate::commit::Plan;
use crate::error::RegistryError;
use crate::object::ObjectKey;
use crate::registry::Registry;

/// Random tries before the range is searched from its start.
const TRIES: usize = 64;

struct Taken {
    key: Bytes,
    /// Where the user asked for exactly this one.
    asked_at: Option<(String, Value)>,
    what: &'static str,
}

/// What a write takes and gives back.
#[derive(Default)]
pub(crate) struct Allocations {
    take: Vec<Taken>,
    release: Vec<Bytes>,
}

impl Allocations {
    pub fn for_create(
        registry: &Registry,
        kind: &'static Kind,
        value: &mut Value,
    ) -> Result<Self, RegistryError> {
        Self::for_update(registry, kind, value, &Value::Null)
    }

    /// Fills in what `new` needs beyond what `old` holds.
    pub fn for_update(
        registry: &Registry,
        kind: &'static Kind,
        new: &mut Value,
        old: &Value,
    ) -> Result<Self, RegistryError> {
        let mut allocations = Self::default();
        if kind != &kinds::SERVICE {
            return Ok(allocations);
        }
        let held = held_keys(old);
        allocations.address(registry, new, &held)?;
        allocations.ports(registry, new, &held)?;
        let kept: BTreeSet<Bytes> = held_keys(new);
        allocations.release = held.difference(&kept).cloned().collect();
        Ok(allocations)
    }

    /// The expectations come after those that the caller has made.
    pub fn plan(&self, plan: &mut Plan, owner: &ObjectKey) {
        for taken in &self.take {
            plan.expect(taken.key.clone(), 0);
            plan.put(taken.key.clone(), owner.store_key());
        }
        for key in &self.release {
            plan.delete(key.clone());
        }
    }

    /// Releases everything that a deleted object holds (what an update in the same transaction
    /// releases already excepted).
    pub fn release_all(kind: &Kind, old: &Value, plan: &mut Plan) {
        if kind == &kinds::SERVICE {
            held_keys(old).into_iter().for_each(|key| plan.delete(key));
        }
    }

    /// An allotment that the user asked for and that is taken is an error; one that was chosen
    /// is chosen anew.
    pub fn check_conflicts(
        &self,
        kind: &Kind,
        key: &ObjectKey,
        found: &[Option<KeyValue>],
    ) -> Result<(), RegistryError> {
        let mut errors = Vec::new();
        for (taken, found) in self.take.iter().zip(found) {
            if let (Some((path, value)), Some(_)) = (&taken.asked_at, found) {
                let message = format!("provided {} is already allocated", taken.what);
                errors.push(FieldError::invalid(path.clone(), value, message));
            }
        }
        if errors.is_empty() {
            return Ok(());
        }
        Err(Invalid::new(kind, &key.name, errors).into())
    }

    fn address(
        &mut self,
        registry: &Registry,
        new: &mut Value,
        held: &BTreeSet<Bytes>,
    ) -> Result<(), RegistryError> {
        if new["spec"]["type"] == "ExternalName" {
            return Ok(());
        }
        let asked = new["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned();
        if asked.is_empty() {
            let address = free_address(registry).ok_or_else(|| exhausted("cluster addresses"))?;
            self.take.push(Taken {
                key: address_key(&address.to_string()),
                asked_at: None,
                what: "IP",
            });
            set_address(new, &address.to_string());
            return Ok(());
        }
        set_address(new, &asked);
        let key = address_key(&asked);
        if asked == "None" || held.contains(&key) {
            return Ok(());
        }
        let network = registry.inner.options.service_cidr;
        // Text that is no address is refused by the validation that follows.
        if asked.parse::<Ipv4Addr>().is_ok_and(|address| !network.contains(address)) {
            let message = format!("the provided IP is not in the valid range {network}");
            let name = new["metadata"]["name"].as_str().unwrap_or_default();
            let error = FieldError::invalid("spec.clusterIP", asked, message);
            return Err(Invalid::new(&kinds::SERVICE, name, vec![error]).into());
        }
        let asked_at = Some(("spec.clusterIP".to_owned(), Value::from(asked)));
        self.take.push(Taken { key, asked_at, what: "IP" });
        Ok(())
    }

    fn ports(
        &mut self,
        registry: &Registry,
        new: &mut Value,
        held: &BTreeSet<Bytes>,
    ) -> Result<(), RegistryError> {
        if !has_node_ports(new) {
            return Ok(());
        }
        let range = registry.inner.options.node_ports.clone();
        let name = new["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let mut used = used_ports(registry);
        let Some(ports) = new["spec"]["ports"].as_array_mut() else { return Ok(()) };
        used.extend(ports.iter().filter_map(node_port));
        for (index, port) in ports.iter_mut().enumerate() {
            let protocol = port["protocol"].as_str().unwrap_or("TCP").to_owned();
            let asked = node_port(port);
            let number = match asked {
                Some(number) => number,
                None => {
                    let free = free_port(&range, &used).ok_or_else(|| exhausted("node ports"))?;
                    used.insert(free);
                    port["nodePort"] = free.into();
                    free
                }
            };
            let key = port_key(&protocol, number);
            if held.contains(&key) || self.take.iter().any(|taken| taken.key == key) {
                continue;
            }
            let path = format!("spec.ports[{index}].nodePort");
            if !range.contains(&number) {
                let (start, end) = (range.start(), range.end());
                let message = format!(
                    "provided port is not in the valid range. The range of valid ports is {start}-{end}"
                );
                let error = FieldError::invalid(path, number, message);
                return Err(Invalid::new(&kinds::SERVICE, &name, vec![error]).into());
            }
            let asked_at = asked.map(|number| (path, Value::from(number)));
            self.take.push(Taken { key, asked_at, what: "port" });
        }
        Ok(())
    }
}

/// An update that leaves out what was allotted keeps it.
pub(crate) fn keep(kind: &Kind, new: &mut Value, old: &Value) {
    if kind != &kinds::SERVICE {
        return;
    }
    let external = |value: &Value| value["spec"]["type"] == "ExternalName";
    let empty = new["spec"]["clusterIP"].as_str().unwrap_or_default().is_empty();
    if empty && !external(new) && !external(old) {
        for field in ["clusterIP", "clusterIPs"] {
            if let Some(value) = old["spec"].get(field) {
                new["spec"][field] = value.clone();
            }
        }
    }
    if !has_node_ports(new) {
        return;
    }
    let same = |a: &Value, b: &Value| a["port"] == b["port"] && a["protocol"] == b["protocol"];
    let old_ports = old["spec"]["ports"].as_array().cloned().unwrap_or_default();
    for port in new["spec"]["ports"].as_array_mut().into_iter().flatten() {
        let before = old_ports.iter().find(|before| same(before, port)).and_then(node_port);
        if let (None, Some(before)) = (node_port(port), before) {
            port["nodePort"] = before.into();
        }
    }
}

fn set_address(value: &mut Value, address: &str) {
    value["spec"]["clusterIP"] = address.into();
    value["spec"]["clusterIPs"] = vec![address].into();
}

fn has_node_ports(value: &Value) -> bool {
    matches!(value["spec"]["type"].as_str(), Some("NodePort" | "LoadBalancer"))
}

fn node_port(port: &Value) -> Option<u16> {
    u16::try_from(port["nodePort"].as_u64()?).ok().filter(|port| *port != 0)
}

/// The allocation keys of a Service.
fn held_keys(service: &Value) -> BTreeSet<Bytes> {
    let mut keys = BTreeSet::new();
    let address = service["spec"]["clusterIP"].as_str().unwrap_or_default();
    if !address.is_empty() && address != "None" {
        keys.insert(address_key(address));
    }
    if has_node_ports(service) {
        for port in service["spec"]["ports"].as_array().into_iter().flatten() {
            let protocol = port["protocol"].as_str().unwrap_or("TCP");
            keys.extend(node_port(port).map(|number| port_key(protocol, number)));
        }
    }
    keys
}

fn address_key(address: &str) -> Bytes {
    format!("/registry-alloc/clusterip/{address}").into()
}

fn port_key(protocol: &str, port: u16) -> Bytes {
    format!("/registry-alloc/nodeport/{protocol}/{port}").into()
}

fn exhausted(what: &str) -> RegistryError {
    RegistryError::Unavailable { reason: format!("no {what} are left"), leader: None }
}

fn free_address(registry: &Registry) -> Option<Ipv4Addr> {
    let used: BTreeSet<String> = registry.inner.cache.read(|view| {
        let services = view.iter(&kinds::SERVICE, None);
        services.filter_map(|s| s.field("spec.clusterIP")).map(str::to_owned).collect()
    });
    let network = registry.inner.options.service_cidr;
    // Neither the network's own address, nor the first (the API's own), nor the broadcast.
    let last = network.size().saturating_sub(2);
    if last < 2 {
        return None;
    }
    let random = (0..TRIES).map(|_| rand::random_range(2..=last));
    random
        .chain(2..=last)
        .filter_map(|offset| network.nth(offset))
        .find(|address| !used.contains(&address.to_string()))
}

fn used_ports(registry: &Registry) -> BTreeSet<u16> {
    registry.inner.cache.read(|view| {
        let services = view.iter(&kinds::SERVICE, None);
        let with_ports = services.filter(|s| s.field("spec.type") != Some("ClusterIP"));
        let mut used = BTreeSet::new();
        for service in with_ports {
            let value = service.value();
            used.extend(
                value["spec"]["ports"].as_array().into_iter().flatten().filter_map(node_port),
            );
        }
        used
    })
}

fn free_port(range: &std::ops::RangeInclusive<u16>, used: &BTreeSet<u16>) -> Option<u16> {
    let random = (0..TRIES).map(|_| rand::random_range(range.clone()));
    random.chain(range.clone()).find(|port| !used.contains(port))
}
