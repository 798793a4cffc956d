//! The masters' disks, and masters that come and go.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use quorate_testkit::membership::Vacancy;
use quorate_testkit::wait_for;
use rand::Rng;

use super::Target;
use crate::disk::{Disk, Names, Trouble, unmount_stale};
use crate::plan::Torn;

/// Longest time until a master that has just been started answers who the members are.
const LIST: Duration = Duration::from_secs(30);

/// The disks by master; none when masters write to the machine's own.
#[derive(Debug)]
pub(super) struct Disks {
    names: Names,
    mounted: Mutex<BTreeMap<String, Disk>>,
    /// The place of one master more, as it was left.
    spare: Mutex<Option<Vacancy>>,
    /// Places whose masters are gone, and that could not be filled again at once.
    vacant: Mutex<Vec<Vacancy>>,
}

impl Disks {
    pub(super) fn new(names: Names) -> Self {
        Self { names, mounted: Mutex::default(), spare: Mutex::default(), vacant: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Disk>> {
        self.mounted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn vacant(&self) -> MutexGuard<'_, Vec<Vacancy>> {
        self.vacant.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}

impl Target {
    /// Puts the data of every master on a disk of its own, one master after the other.
    ///
    /// # Errors
    /// When a disk cannot be mounted, or a master does not come back on it.
    pub(super) async fn move_to_disks(&self) -> Result<()> {
        for at in unmount_stale()? {
            eprintln!("unmounted {}, which an earlier run left behind", at.display());
        }
        for name in self.masters() {
            self.cluster.signal(&name, Signal::SIGTERM)?;
            self.cluster.wait_ended(&name).await?;
            let disk = Disk::mount(&self.cluster.data_dir(&name), self.disks.names)?;
            self.disks.lock().insert(name.clone(), disk);
            self.cluster.start_again(&name)?;
            self.cluster.wait_ready().await?;
        }
        Ok(())
    }

    fn on_disk<T>(&self, master: &str, act: impl FnOnce(&Disk) -> T) -> Result<T> {
        let disks = self.disks.lock();
        Ok(act(disks.get(master).with_context(|| format!("{master} has no disk of ours"))?))
    }

    /// The power of a machine fails whose master has ended.
    ///
    /// # Errors
    /// When the master has no disk of ours.
    pub fn crash_disk(&self, master: &str, torn: Torn, random: &mut impl Rng) -> Result<()> {
        self.on_disk(master, |disk| disk.crash(torn, random))?
    }

    /// Begins a trouble of a master's disk.
    ///
    /// # Errors
    /// When the master has no disk of ours.
    pub fn trouble(&self, master: &str, trouble: Trouble) -> Result<()> {
        self.on_disk(master, |disk| disk.trouble(trouble))
    }

    /// Ends every trouble of a master's disk.
    ///
    /// # Errors
    /// When the master has no disk of ours.
    pub fn heal_disk(&self, master: &str) -> Result<()> {
        self.on_disk(master, Disk::heal)
    }

    /// Ends every trouble of every disk.
    pub fn heal_disks(&self) {
        self.disks.lock().values().for_each(Disk::heal);
    }

    /// Flips a bit on the disk of a master that has ended; says where.
    ///
    /// # Errors
    /// When the master has no disk of ours, or there is nothing on it.
    pub fn flip_bit(&self, master: &str, random: &mut impl Rng) -> Result<String> {
        let flipped = self.on_disk(master, |disk| disk.rot(random))??;
        flipped.with_context(|| format!("the disk of {master} holds no data"))
    }

    /// Empties the disk of a master that has ended.
    ///
    /// # Errors
    /// When that is not possible.
    pub fn wipe(&self, master: &str) -> Result<()> {
        let folder = self.cluster.data_dir(master);
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                std::fs::remove_dir_all(&path)?;
            } else {
                std::fs::remove_file(&path)?;
            }
        }
        if !self.disks.is_empty() {
            self.on_disk(master, Disk::sync_all)?;
        }
        Ok(())
    }

    /// Removes a master for good, and adds a new one in its place; returns its name when it has
    /// its vote.
    ///
    /// # Errors
    /// When the others refuse, or it does not catch up.
    pub async fn replace(&self, master: &str) -> Result<String> {
        let place = self.cluster.remove_master(master).await?;
        self.fill(place).await
    }

    /// Finishes what other faults have interrupted: whose removal was not answered is removed, whose
    /// admission was not answered is forgotten, and each place has a master again.
    ///
    /// # Errors
    /// As [`Target::replace`].
    pub async fn fill_places(&self) -> Result<()> {
        let list = async || Ok(self.observer()?.members().await?);
        let (members, _) = wait_for("a list of the members", LIST, list).await?;
        let masters = self.masters();
        for stray in members.iter().filter(|member| !masters.contains(&member.name)) {
            self.cluster.remove_member(&stray.name).await?;
        }
        for name in masters {
            if !members.iter().any(|member| member.name == name) {
                let place = self.cluster.remove_master(&name).await?;
                self.disks.vacant().push(place);
            }
        }
        loop {
            let Some(place) = self.disks.vacant().pop() else { return Ok(()) };
            self.fill(place).await?;
        }
    }

    async fn fill(&self, place: Vacancy) -> Result<String> {
        let last = place.last().to_owned();
        self.disks.vacant().push(place.clone());
        let name = self.admit(place).await?;
        self.disks.vacant().retain(|vacancy| vacancy.last() != last);
        self.cluster.wait_voter(&name).await?;
        Ok(name)
    }

    /// A place for one master more.
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn spare_place(&self) -> Result<Vacancy> {
        let spare = self.disks.spare.lock().unwrap_or_else(PoisonError::into_inner).take();
        spare.map_or_else(|| self.cluster.new_place(), Ok)
    }

    /// Adds one master more.
    ///
    /// # Errors
    /// As [`Target::replace`].
    pub async fn grow(&self, place: Vacancy) -> Result<String> {
        let name = self.admit(place).await?;
        self.cluster.wait_voter(&name).await?;
        Ok(name)
    }

    /// Removes the master that was added.
    ///
    /// # Errors
    /// When the others refuse.
    pub async fn shrink(&self, master: &str) -> Result<()> {
        let place = self.cluster.remove_master(master).await?;
        self.disks.lock().remove(master);
        let mut spare = self.disks.spare.lock().unwrap_or_else(PoisonError::into_inner);
        *spare = Some(place);
        Ok(())
    }

    async fn admit(&self, place: Vacancy) -> Result<String> {
        let with_disk = !self.disks.is_empty();
        self.disks.lock().remove(place.last());
        let mut mounted = None;
        let name = self.cluster.add_master(place, |data| {
            if with_disk {
                mounted = Some(Disk::mount(data, self.disks.names)?);
            }
            Ok(())
        });
        let name = name.await?;
        if let Some(disk) = mounted {
            self.disks.lock().insert(name.clone(), disk);
        }
        Ok(name)
    }
}
