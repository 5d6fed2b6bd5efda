//! A disk of a chosen size: a tmpfs in a mount namespace of its own, which needs no privileges where the system
//! has user namespaces. Where it has none, the tmpfs is mounted for everybody, which root may do.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

/// Removed with everything on it when it is dropped.
pub struct SmallDisk {
    folder: TempDir,
    /// A process that keeps the namespace; none where the disk is mounted for everybody.
    keeper: Option<Child>,
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        match &mut self.keeper {
            Some(keeper) => {
                let _ = keeper.kill();
                let _ = keeper.wait();
            }
            None => {
                let _ = Command::new("umount").arg("--lazy").arg(self.folder.path()).status();
            }
        }
    }
}

impl SmallDisk {
    pub fn mount(megabytes: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mount = format!("mount -t tmpfs -o size={megabytes}m tmpfs '{}'", folder.path().display());
        let keeper = keep_namespace(&mount);
        if keeper.is_none() {
            let mounted = Command::new("sh").args(["-c", &mount]).output().unwrap();
            assert!(
                mounted.status.success(),
                "neither user namespaces nor mount as root work here: {}",
                String::from_utf8_lossy(&mounted.stderr)
            );
        }
        Self { folder, keeper }
    }

    /// Where it is mounted, for commands that run [on it](Self::command).
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The same, for this process.
    pub fn outside(&self, file: &str) -> PathBuf {
        let path = self.path().join(file);
        match &self.keeper {
            Some(keeper) => {
                Path::new(&format!("/proc/{}/root", keeper.id())).join(path.strip_prefix("/").unwrap())
            }
            None => path,
        }
    }

    /// A command that sees it.
    pub fn command(&self, program: &str) -> Command {
        match &self.keeper {
            Some(keeper) => {
                let mut command = Command::new("nsenter");
                command.args(["--preserve-credentials", "--user", "--mount", "--target"]);
                command.arg(keeper.id().to_string()).arg(program);
                command
            }
            None => Command::new(program),
        }
    }

    pub fn make_read_only(&self) {
        let remounted = self.command("mount").args(["-o", "remount,ro"]).arg(self.path()).status();
        assert!(remounted.unwrap().success());
    }

    /// Takes all the space that is left.
    pub fn fill(&self) {
        let mut file = File::create(self.outside("filler")).unwrap();
        let block = [7; 4096];
        let mut at = 0;
        while file.write_all_at(&block, at).is_ok() {
            at += block.len() as u64;
        }
        file.flush().unwrap();
    }

    pub fn free(&self) {
        fs::remove_file(self.outside("filler")).unwrap();
    }
}

/// Runs `mount` in new namespaces, and keeps them; none if the system has no user namespaces for us.
fn keep_namespace(mount: &str) -> Option<Child> {
    let mut keeper = Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            &format!("{mount} && echo mounted && exec cat"),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut line = String::new();
    let said = BufReader::new(keeper.stdout.as_mut()?).read_line(&mut line);
    if said.is_ok() && line.trim() == "mounted" {
        return Some(keeper);
    }
    let _ = keeper.kill();
    let _ = keeper.wait();
    None
}
