//! `--initial-masters`: who forms a new cluster.

use std::str::FromStr;

/// One entry of `--initial-masters`: `NAME=CLIENT_URL,PEER_URL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialMaster {
    /// The master's name.
    pub name: String,
    /// Where clients reach it.
    pub client_url: String,
    /// Where the other masters reach it.
    pub peer_url: String,
}

impl FromStr for InitialMaster {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || format!("{text:?}: expected NAME=CLIENT_URL,PEER_URL");
        let (name, urls) = text.split_once('=').ok_or_else(wanted)?;
        let (client_url, peer_url) = urls.split_once(',').ok_or_else(wanted)?;
        let is_url = |url: &str| url.starts_with("http://") || url.starts_with("https://");
        if name.is_empty() || !is_url(client_url) || !is_url(peer_url) {
            return Err(wanted());
        }
        Ok(Self { name: name.into(), client_url: client_url.into(), peer_url: peer_url.into() })
    }
}

/// Checks that the list names this master, and nobody twice.
///
/// # Errors
/// What is wrong with the list.
pub fn check(masters: &[InitialMaster], name: &str) -> anyhow::Result<()> {
    for (position, master) in masters.iter().enumerate() {
        if masters[..position].iter().any(|earlier| earlier.name == master.name) {
            anyhow::bail!("--initial-masters names {:?} twice", master.name);
        }
    }
    if !masters.iter().any(|master| master.name == name) {
        anyhow::bail!("--initial-masters does not name this master, {name:?} (see --name)");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_name_and_urls() {
        let master: InitialMaster =
            "m1=http://127.0.0.1:7001,http://127.0.0.1:7101".parse().unwrap();
        assert_eq!(master.name, "m1");
        assert_eq!(master.client_url, "http://127.0.0.1:7001");
        assert_eq!(master.peer_url, "http://127.0.0.1:7101");
    }

    #[test]
    fn refuses_what_is_incomplete() {
        for text in ["m1", "m1=http://a:1", "=http://a:1,http://a:2", "m1=a:1,a:2"] {
            assert!(text.parse::<InitialMaster>().is_err(), "{text}");
        }
    }

    #[test]
    fn refuses_a_list_without_this_master_and_one_with_a_name_twice() {
        let one: InitialMaster = "m1=http://a:1,http://a:2".parse().unwrap();
        assert!(check(std::slice::from_ref(&one), "m2").is_err());
        assert!(check(&[one.clone(), one], "m1").is_err());
    }
}
