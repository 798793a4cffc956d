use super::*;

#[test]
fn only_disks_of_processes_that_are_gone_are_stale() {
    let table = "proc /proc proc rw 0 0\n\
                 quorate-chaos-disk:12 /tmp/a/m1/data fuse.quorate rw 0 0\n\
                 quorate-chaos-disk:13 /tmp/b/m1/data fuse.quorate rw 0 0\n\
                 sshfs /mnt fuse.sshfs rw 0 0\n";
    assert_eq!(stale(table, |pid| pid == 13), [PathBuf::from("/tmp/a/m1/data")]);
}
