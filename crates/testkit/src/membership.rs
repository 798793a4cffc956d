//! Masters of a [`TestCluster`] that are removed for good, and new ones in their place.
//!
//! A place is what stays: ports, and the proxy in front of them. Who has it changes its name:
//! after `m1` comes `m1-2`, for no name is used twice.

use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use quorate_client::v1::AddMemberRequest;
use quorate_client::{Client, ClientOptions};
use serde_json::Value;

use crate::cluster::{PATIENCE, TestCluster};
use crate::ports::is_free;
use crate::wait::wait_for;

/// Longest time for one call that changes the members.
const CALL: Duration = Duration::from_secs(10);
/// A member that is behind by fewer entries has caught up.
const CAUGHT_UP: u64 = 1_000;

/// The place of a master: `m1` of `m1-2`.
#[must_use]
pub fn place(name: &str) -> &str {
    name.split_once('-').map_or(name, |(place, _)| place)
}

/// Who has the place next.
fn successor(name: &str) -> String {
    let (place, number) = name.split_once('-').unwrap_or((name, "1"));
    format!("{place}-{}", number.parse::<u32>().unwrap_or(1) + 1)
}

/// A master that is no longer one: what its successor needs.
#[derive(Clone, Debug)]
pub struct Vacancy {
    last: String,
    /// Its entry in `cluster.json`.
    entry: Value,
    command: Vec<String>,
}

impl Vacancy {
    /// Who had the place last.
    #[must_use]
    pub fn last(&self) -> &str {
        &self.last
    }

    /// Who will have it next.
    #[must_use]
    pub fn next(&self) -> String {
        successor(&self.last)
    }
}

impl TestCluster {
    fn admin(&self) -> Result<Client> {
        let options = ClientOptions { timeout: CALL, ..ClientOptions::default() };
        Ok(Client::from_cluster_file(&self.file_behind_links()?, options)?)
    }

    /// Removes a master from the members, and leaves its process alone.
    ///
    /// # Errors
    /// As [`TestCluster::remove_master`].
    pub async fn remove_member(&self, name: &str) -> Result<()> {
        // Whoever is asked may end before it answers: the one that is removed, for instance.
        wait_for(&format!("removal of {name}"), PATIENCE, async || {
            match self.admin()?.remove_member(name).await {
                // An earlier attempt whose answer was lost.
                Err(error) if error.is_not_found() => Ok(()),
                removed => Ok(removed?),
            }
        })
        .await
        .map(drop)
    }

    /// Removes a master from the members, and ends its process if it has not ended by itself.
    ///
    /// # Errors
    /// When the others refuse: for instance because they are no majority without it.
    pub async fn remove_master(&self, name: &str) -> Result<Vacancy> {
        self.remove_member(name).await?;
        if self.pids()?.contains_key(name) {
            // It ends by itself when it learns that it is removed; whether it does is another
            // test's question. Its successor needs the ports, which it holds to its very end.
            let _ = self.signal(name, Signal::SIGCONT);
            let _ = self.signal(name, Signal::SIGKILL);
            self.wait_ended(name).await?;
        }
        let command = self.commands.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        let command = command.with_context(|| format!("no {name} in this cluster"))?;
        wait_for(&format!("the ports of {name} are free"), PATIENCE, async || ports_free(&command))
            .await?;
        let mut taken = None;
        self.change_file(|file| {
            let masters = file["masters"].as_array_mut().context("masters")?;
            let at = masters.iter().position(|entry| entry["name"] == name);
            taken = at.map(|at| masters.remove(at));
            Ok(())
        })?;
        let entry = taken.with_context(|| format!("no {name} in cluster.json"))?;
        Ok(Vacancy { last: name.to_owned(), entry, command })
    }

    /// A place that nobody has had: that of a master more than the cluster was started with.
    ///
    /// # Errors
    /// When no port is left for it.
    pub fn new_place(&self) -> Result<Vacancy> {
        ensure!(self.spare_place, "this cluster was started without room for one more master");
        let file: Value = serde_json::from_slice(&std::fs::read(self.dir.join("cluster.json"))?)?;
        let masters = file["masters"].as_array().context("masters")?;
        let model = masters.first().context("no master")?;
        let name = model["name"].as_str().unwrap_or_default().to_owned();
        let (from, to) = (number(&name), self.first_masters + 1);
        let commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        let command = commands.get(&name).with_context(|| format!("no {name}"))?;
        let moved = |text: &str| move_ports(text, from, to);
        let mut entry = model.clone();
        for key in ["url", "peer_url", "listen", "peer_listen"] {
            if let Some(text) = entry[key].as_str() {
                entry[key] = moved(text).into();
            }
        }
        let mut command = command.clone();
        for flag in ["--listen", "--peer-listen"] {
            let old = value_of(&command, flag).map(moved).unwrap_or_default();
            set(&mut command, flag, old);
        }
        Ok(Vacancy { last: format!("m{to}"), entry, command })
    }

    /// Adds a new master in a place that is free, starts it, and returns its name. `prepare` is
    /// given the folder for its data before that.
    ///
    /// # Errors
    /// When the others refuse, or it cannot be started.
    pub async fn add_master(
        &self,
        place: Vacancy,
        prepare: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<String> {
        let Vacancy { last, mut entry, mut command } = place;
        let name = successor(&last);
        let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        let (url, peer_url) = (text(&entry, "url"), text(&entry, "peer_url"));
        let request = AddMemberRequest {
            name: name.clone(),
            peer_url: peer_url.clone(),
            client_url: url.clone(),
            learner: false,
        };
        let mut asked_before = false;
        wait_for(&format!("admission of {name}"), PATIENCE, async || {
            let added = self.admin()?.add_member(request.clone()).await;
            match added {
                // An earlier attempt whose answer was lost.
                Err(error) if asked_before && error.is_already_exists() => Ok(()),
                Err(error) => {
                    asked_before = true;
                    Err(error.into())
                }
                Ok(_) => Ok(()),
            }
        })
        .await?;
        let data = self.dir.join(&name).join("data");
        std::fs::create_dir_all(&data)?;
        prepare(&data)?;
        let mut initial: Vec<String> = Vec::new();
        for master in self.file()?.masters {
            initial.push(format!("{}={},{}", master.name, master.url, master.peer_url));
        }
        initial.push(format!("{name}={url},{peer_url}"));
        set(&mut command, "--name", name.clone());
        set(&mut command, "--data-dir", data.display().to_string());
        set(&mut command, "--initial-masters", initial.join(";"));
        if !command.iter().any(|arg| arg == "--join") {
            command.push("--join".to_owned());
        }
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        commands.insert(name.clone(), command);
        drop(commands);
        entry["name"] = name.clone().into();
        entry["pid"] = 0.into();
        entry["data_dir"] = data.display().to_string().into();
        self.change_file(|file| {
            let masters = file["masters"].as_array_mut().context("masters")?;
            masters.push(entry);
            masters.sort_by_key(|entry| number(entry["name"].as_str().unwrap_or_default()));
            Ok(())
        })?;
        self.start_again(&name)?;
        Ok(name)
    }

    /// Waits until a master has its vote, and has caught up.
    ///
    /// # Errors
    /// When that does not come about.
    pub async fn wait_voter(&self, name: &str) -> Result<()> {
        wait_for(&format!("{name} has a vote"), PATIENCE, async || {
            let members = self.admin()?.members().await?;
            let member = members.iter().find(|member| member.name == name);
            let member = member.with_context(|| format!("{name} is no member"))?;
            ensure!(!member.learner, "{name} is a learner");
            // The leader alone knows it, and of itself it knows nothing.
            let lag = member.lag.unwrap_or(0);
            ensure!(lag < CAUGHT_UP, "{name} is behind by {lag}");
            Ok(())
        })
        .await
        .map(drop)
    }

    /// The folder of a master's data.
    #[must_use]
    pub fn data_dir(&self, master: &str) -> PathBuf {
        self.dir.join(master).join("data")
    }
}

/// The number of a master's place.
fn number(name: &str) -> u16 {
    place(name).trim_start_matches('m').parse().unwrap_or(0)
}

/// An address of the place `from` as the place `to` has it.
fn move_ports(address: &str, from: u16, to: u16) -> String {
    let Some((host, port)) = address.rsplit_once(':') else { return address.to_owned() };
    let port: u16 = port.parse().unwrap_or(0);
    format!("{host}:{}", port + to - from)
}

/// Seen once: the port of a process that is gone was still taken for a moment.
fn ports_free(command: &[String]) -> Result<()> {
    for flag in ["--listen", "--peer-listen"] {
        let address = value_of(command, flag).with_context(|| format!("no {flag}"))?;
        ensure!(is_free(address), "{address} is in use");
    }
    Ok(())
}

fn value_of<'a>(command: &'a [String], flag: &str) -> Option<&'a str> {
    let at = command.iter().position(|arg| arg == flag)?;
    command.get(at + 1).map(String::as_str)
}

fn set(command: &mut Vec<String>, flag: &str, value: String) {
    match command.iter().position(|arg| arg == flag) {
        Some(at) if at + 1 < command.len() => command[at + 1] = value,
        _ => command.extend([flag.to_owned(), value]),
    }
}

#[cfg(test)]
#[path = "membership_test.rs"]
mod tests;
