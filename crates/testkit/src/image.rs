//! Images for the demo and the tests, built from scratch: no registry is asked.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::docker::Daemon;

/// Image of the demo's web server.
pub const WEB_IMAGE: &str = "quorate-demo-web:1";
/// The same under a second name, for rollouts.
pub const WEB_IMAGE_2: &str = "quorate-demo-web:2";

const DOCKERFILE: &str = include_str!("../../../deploy/demo/Dockerfile");
const CGI: &str = include_str!("../../../deploy/demo/cgi-bin/hello");

/// Applets of busybox that the image offers.
const APPLETS: &[&str] = &[
    "sh", "httpd", "hostname", "cat", "echo", "env", "ls", "nc", "printf", "sleep", "wget", "true",
    "false", "date", "id", "ip", "nslookup", "ps", "rm", "seq", "tar", "test", "touch", "tr",
];

/// Builds the web image under `tag` for the machine's daemon; quick when it is there already.
///
/// # Errors
/// When busybox is missing or Docker fails.
pub async fn build_web_image(tag: &str) -> Result<()> {
    build_web_image_for(&Daemon::default(), tag).await
}

/// The same for any daemon.
///
/// # Errors
/// As [`build_web_image`].
pub async fn build_web_image_for(daemon: &Daemon, tag: &str) -> Result<()> {
    let context = tempfile::tempdir().context("making a folder for the image")?;
    write_context(context.path()).context("writing the image's files")?;
    let folder = context.path().display().to_string();
    let args = ["build", "--quiet", "--network=none", "-t", tag, &folder];
    daemon.run(&args.map(str::to_owned)).await?;
    Ok(())
}

fn write_context(folder: &Path) -> Result<()> {
    let bin = folder.join("rootfs/bin");
    let cgi_bin = folder.join("rootfs/www/cgi-bin");
    for dir in [&bin, &cgi_bin, &folder.join("rootfs/etc"), &folder.join("rootfs/tmp")] {
        std::fs::create_dir_all(dir)?;
    }
    std::fs::write(folder.join("Dockerfile"), DOCKERFILE)?;
    std::fs::write(folder.join("rootfs/etc/passwd"), "root:x:0:0:root:/:/bin/sh\n")?;
    std::fs::write(folder.join("rootfs/www/index.html"), "it works\n")?;
    let script = cgi_bin.join("hello");
    std::fs::write(&script, CGI)?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
    std::fs::copy(busybox()?, bin.join("busybox"))?;
    for applet in APPLETS {
        symlink("busybox", bin.join(applet))?;
    }
    Ok(())
}

fn busybox() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/bin".into(), "/usr/bin".into()])
        .map(|dir| dir.join("busybox"))
        .find(|file| file.is_file())
        .context("no busybox: deploy/install-deps.sh installs it (package busybox-static)")
}
