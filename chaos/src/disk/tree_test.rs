use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::*;

fn lose_all(tree: &mut Tree) {
    tree.crash(Torn::No, &mut StdRng::seed_from_u64(0)).expect("crashed");
}

fn tree() -> (tempfile::TempDir, Tree) {
    tree_with(Names::WithDirectory)
}

fn tree_with(names: Names) -> (tempfile::TempDir, Tree) {
    let folder = tempfile::tempdir().expect("a folder");
    let tree = Tree::new(folder.path(), names).expect("a tree");
    (folder, tree)
}

fn names(tree: &Tree, number: u64) -> Vec<String> {
    let names = tree.names(number).expect("a directory").keys();
    names.map(|name| name.to_string_lossy().into_owned()).collect()
}

#[test]
fn a_name_is_on_the_disk_when_its_directory_was_synced() {
    let (_folder, mut tree) = tree();
    let file = tree.create(ROOT, "kept".as_ref(), 0o644).expect("created");
    tree.write(file, 0, b"text").expect("written");
    tree.sync(ROOT).expect("synced");
    let other = tree.create(ROOT, "gone".as_ref(), 0o644).expect("created");
    tree.write(other, 0, b"text").expect("written");
    tree.sync(other).expect("synced");
    lose_all(&mut tree);
    assert_eq!(names(&tree, ROOT), ["kept"]);
    assert_eq!(tree.read(file, 0, 9).expect("read"), b"", "its bytes were not synced");
}

#[test]
fn a_rename_and_a_removal_are_undone_with_everything_below() {
    let (folder, mut tree) = tree();
    let old = tree.make_directory(ROOT, "old".as_ref(), 0o755).expect("made");
    let file = tree.create(old, "f".as_ref(), 0o644).expect("created");
    tree.write(file, 0, b"text").expect("written");
    tree.sync_all();
    tree.rename((ROOT, "old".as_ref()), (ROOT, "new".as_ref())).expect("renamed");
    tree.unlink(old, "f".as_ref()).expect("removed");
    assert_eq!(names(&tree, ROOT), ["new"]);
    lose_all(&mut tree);
    assert_eq!(names(&tree, ROOT), ["old"]);
    assert_eq!(tree.read(file, 0, 9).expect("read"), b"text");
    tree.unlink(old, "f".as_ref()).expect("removed");
    tree.sync(old).expect("synced");
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0, "nothing is left of it");
}

#[test]
fn a_file_lives_while_it_is_open_and_under_each_of_its_names() {
    let (_folder, mut tree) = tree();
    let file = tree.create(ROOT, "one".as_ref(), 0o644).expect("created");
    tree.link(file, ROOT, "two".as_ref()).expect("linked");
    assert_eq!(tree.links(file), 2);
    tree.open(file).expect("open");
    tree.unlink(ROOT, "one".as_ref()).expect("removed");
    tree.unlink(ROOT, "two".as_ref()).expect("removed");
    tree.write(file, 0, b"still").expect("written");
    assert_eq!(tree.read(file, 0, 9).expect("read"), b"still");
    tree.close(file);
    assert_eq!(tree.read(file, 0, 9), Err(Errno::ENOENT));
}

#[test]
fn where_a_file_is_synced_with_its_names_those_above_and_renames_are_too() {
    let (_folder, mut tree) = tree_with(Names::WithFile);
    let log = tree.make_directory(ROOT, "log".as_ref(), 0o755).expect("made");
    let file = tree.create(log, "1.tmp".as_ref(), 0o644).expect("created");
    tree.create(log, "2".as_ref(), 0o644).expect("created");
    tree.write(file, 0, b"text").expect("written");
    tree.sync(file).expect("synced");
    lose_all(&mut tree);
    assert_eq!((names(&tree, ROOT), names(&tree, log)), (vec!["log".into()], vec!["1.tmp".into()]));
    tree.rename((log, "1.tmp".as_ref()), (log, "1".as_ref())).expect("renamed");
    tree.sync(file).expect("synced");
    lose_all(&mut tree);
    assert_eq!(names(&tree, log), ["1"]);
}
