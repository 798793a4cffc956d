//! `quorate snapshot verify` and `restore`: what needs the store and no running master.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use quorate_cli::RestoreRequest;
use quorate_raftstore::{InitialMember, Options, Restored};

use crate::members::{self, InitialMaster};

/// Checks a snapshot file, and says what it holds.
///
/// # Errors
/// What is wrong with it.
pub async fn verify(file: PathBuf) -> Result<String, String> {
    let verified = tokio::task::spawn_blocking(move || quorate_raftstore::verify(&file));
    let verified = verified.await.map_err(|error| error.to_string())?;
    verified.map(|restored| format!("intact: {}", describe(restored))).map_err(|e| e.to_string())
}

/// Makes a master's data directory from a snapshot file.
///
/// # Errors
/// What is wrong with the request or the file.
pub async fn restore(request: RestoreRequest) -> Result<String, String> {
    let masters = request.initial_masters.iter().map(|text| text.parse::<InitialMaster>());
    let masters: Vec<_> = masters.collect::<Result<_, _>>()?;
    members::check(&masters, &request.name).map_err(|error| error.to_string())?;
    let tls = masters.iter().any(|master| master.peer_url.starts_with("https://"));
    let members = masters.into_iter().map(|master| InitialMember {
        name: master.name,
        peer_url: master.peer_url,
        client_url: master.client_url,
    });
    // Nothing listens: the address only completes the options.
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let RestoreRequest { data_dir, cluster_id, name, .. } = &request;
    let options = Options::new(data_dir, cluster_id, name, nowhere, members.collect());
    let restored = quorate_raftstore::restore(&request.file, &options, tls).await;
    let restored = restored.map_err(|error| error.to_string())?;
    Ok(format!("{} restored: {}", data_dir.display(), describe(restored)))
}

fn describe(restored: Restored) -> String {
    let Restored { revision, index, term } = restored;
    format!("revision {revision}, log index {index}, term {term}")
}
