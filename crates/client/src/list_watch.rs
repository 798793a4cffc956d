//! [`ListWatch`]: list, watch, and list again when the history is gone, as one stream.

use std::collections::{HashMap, VecDeque};

use quorate_objects::Kind;

use crate::{Client, ClientError, Event, ListOptions, Object, Watch, WatchOptions};

/// How the set of objects changed.
#[derive(Clone, Debug, PartialEq)]
pub enum Difference {
    /// New in the set.
    Added(Object),
    /// Changed.
    Modified(Object),
    /// No longer in the set; its last known state.
    Deleted(Object),
    /// The set is complete as of this revision. Comes after every list.
    Synced(u64),
}

/// Keeps up with a set of objects. Yields differences only, whatever happens to masters,
/// connections and history.
pub struct ListWatch {
    client: Client,
    kind: &'static Kind,
    options: WatchOptions,
    known: HashMap<(String, String), Object>,
    queue: VecDeque<Difference>,
    watch: Option<Watch>,
}

impl Client {
    /// Lists, then watches. `options.revision` has no meaning here.
    #[must_use]
    pub fn list_watch(&self, kind: &'static Kind, options: WatchOptions) -> ListWatch {
        ListWatch {
            client: self.clone(),
            kind,
            options,
            known: HashMap::new(),
            queue: VecDeque::new(),
            watch: None,
        }
    }
}

impl ListWatch {
    /// The present set.
    pub fn known(&self) -> impl Iterator<Item = &Object> {
        self.known.values()
    }

    /// Waits for the next difference. Cancel-safe.
    ///
    /// # Errors
    /// When no master answers for long, or the request is refused.
    pub async fn next(&mut self) -> Result<Difference, ClientError> {
        loop {
            if let Some(difference) = self.queue.pop_front() {
                return Ok(difference);
            }
            let Some(watch) = &mut self.watch else {
                self.relist().await?;
                continue;
            };
            match watch.next().await {
                Ok(event) => self.take(event),
                Err(error) if error.is_gone() => self.watch = None,
                Err(error) => return Err(error),
            }
        }
    }

    async fn relist(&mut self) -> Result<(), ClientError> {
        let options = ListOptions {
            namespace: self.options.namespace.clone(),
            labels: self.options.labels.clone(),
            fields: self.options.fields.clone(),
            ..ListOptions::default()
        };
        let list = self.client.list(self.kind, &options).await?;
        let mut gone = std::mem::take(&mut self.known);
        for object in list.items {
            let key = (object.namespace.clone(), object.name.clone());
            match gone.remove(&key) {
                None => self.queue.push_back(Difference::Added(object.clone())),
                Some(old) if old.revision != object.revision => {
                    self.queue.push_back(Difference::Modified(object.clone()));
                }
                Some(_) => {}
            }
            self.known.insert(key, object);
        }
        self.queue.extend(gone.into_values().map(Difference::Deleted));
        self.queue.push_back(Difference::Synced(list.revision));
        let options = WatchOptions { revision: list.revision, ..self.options.clone() };
        self.watch = Some(self.client.watch(self.kind, options));
        Ok(())
    }

    fn take(&mut self, event: Event) {
        let (Event::Added(object) | Event::Modified(object)) = event else {
            if let Event::Deleted(object) = event {
                self.known.remove(&(object.namespace.clone(), object.name.clone()));
                self.queue.push_back(Difference::Deleted(object));
            }
            return;
        };
        let key = (object.namespace.clone(), object.name.clone());
        let difference = match self.known.insert(key, object.clone()) {
            None => Difference::Added(object),
            Some(_) => Difference::Modified(object),
        };
        self.queue.push_back(difference);
    }
}
