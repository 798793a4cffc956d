use std::path::{Path, PathBuf};

use super::*;

#[test]
fn names_carry_the_range_of_ports() {
    assert_eq!(network::bridge(21_200), "qrh21200");
    for name in ["qrh21200", "qrh21200-n1", "qrh21200.12"] {
        assert_eq!(network::base_of(name), Some(21_200), "{name}");
        assert!(name.len() <= 15, "the kernel's limit for names of links");
    }
    for name in ["docker0", "qr0123456789", "qrh", "qrhello-n1"] {
        assert_eq!(network::base_of(name), None, "{name}");
    }
}

#[test]
fn clusters_have_networks_of_their_own() {
    let (one, other) = (network::gateway(21_000), network::gateway(21_200));
    assert_ne!(one, other);
    assert_eq!(network::address(one, 1).octets()[..3], one.octets()[..3]);
    assert_ne!(network::address(one, 1), network::address(one, 2));
}

#[test]
fn containers_of_a_host_are_known_by_their_group() {
    let groups = "9:name=systemd:/qrh21000-n1/0123\n8:pids:/qrh21000-n1/0123\n";
    assert!(remains::is_in_group(groups, "qrh21000-n1"));
    assert!(!remains::is_in_group(groups, "qrh21000-n11"));
    assert!(!remains::is_in_group("8:pids:/docker/0123\n", "qrh21000-n1"));
}

#[test]
fn mounts_of_a_host_are_found_and_no_others() {
    let table = "/dev/vda / ext4 rw 0 0\nnsfs /t/qrh1-n1/run/netns/a nsfs rw 0 0\n\
                 fuse /t/qrh1-n11/x fuse rw 0 0\n";
    let found = remains::mounts_under(table, Path::new("/t/qrh1-n1"));
    assert_eq!(found, [PathBuf::from("/t/qrh1-n1/run/netns/a")]);
}
