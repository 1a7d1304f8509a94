//! With the real `git lfs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lockhouse::auth::Scope;
use lockhouse::config::AuthMode;
use lockhouse::domain::access::Takeover;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::Lfs;
use super::common::Server;
use super::common::process::is_missing;

/// A repository with a person in it, who uses the real `git lfs`.
struct Clone {
    folder: PathBuf,
    home: PathBuf,
}

impl Clone {
    fn of(remote: &Path, place: &Path, url: &str) -> Self {
        let clone = Self { folder: place.join("clone"), home: place.to_owned() };
        fs::create_dir_all(&clone.home).unwrap();
        let made = clone.in_folder(&clone.home, &["clone", "-q", remote.to_str().unwrap(), "clone"]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        for (key, value) in [
            ("user.name", "Test"),
            ("user.email", "test@example.org"),
            ("lfs.url", url),
            ("lfs.locksverify", "true"),
        ] {
            clone.git(&["config", key, value]);
        }
        clone.git(&["lfs", "install", "--local"]);
        clone
    }

    fn in_folder(&self, folder: &Path, arguments: &[&str]) -> Output {
        Command::new("git")
            .args(arguments)
            .current_dir(folder)
            .env("HOME", &self.home)
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("LANG", "C")
            .output()
            .unwrap()
    }

    fn run(&self, arguments: &[&str]) -> (bool, String) {
        let output = self.in_folder(&self.folder, arguments);
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    #[track_caller]
    fn git(&self, arguments: &[&str]) -> String {
        let (succeeded, said) = self.run(arguments);
        assert!(succeeded, "git {arguments:?}: {said}");
        said
    }

    #[track_caller]
    fn fails(&self, arguments: &[&str], says: &str) {
        let (succeeded, said) = self.run(arguments);
        assert!(!succeeded && said.contains(says), "git {arguments:?} must say {says:?}: {said}");
    }

    fn commit(&self, file: &str, text: &str) {
        fs::write(self.folder.join(file), text).unwrap();
        self.git(&["add", "."]);
        self.git(&["commit", "-q", "-m", "Change"]);
    }
}

/// A server, a bare repository, and its clones of alice and bob.
fn team(
    password: impl Fn(&Server, &str) -> String,
    set: impl FnOnce(&mut lockhouse::config::Config),
) -> Option<(Server, TempDir, Clone, Clone)> {
    if is_missing("git-lfs") {
        return None;
    }
    let server = Server::with(set);
    let place = tempfile::tempdir().unwrap();
    let remote = place.path().join("game.git");
    assert!(
        Command::new("git")
            .args(["init", "-q", "--bare", "-b", "main"])
            .arg(&remote)
            .status()
            .unwrap()
            .success()
    );
    let clone = |user: &str| {
        let (password, address) = (password(&server, user), server.address());
        let url = format!("http://{user}:{password}@{address}/lfs/team/game.git/info/lfs");
        Clone::of(&remote, &place.path().join(user), &url)
    };
    let alice = clone("alice");
    alice.git(&["checkout", "-q", "-b", "main"]);
    fs::write(alice.folder.join(".gitattributes"), "*.psd lockable\n").unwrap();
    alice.commit("hero.psd", "one");
    alice.git(&["push", "-q", "origin", "main"]);
    let bob = clone("bob");
    Some((server, place, alice, bob))
}

#[test]
fn the_real_client_locks_verifies_and_unlocks() {
    let Some((server, _place, alice, bob)) = team(
        |server, user| server.token(Scope::User, Some(user)),
        |config| {
            config.auth.mode = AuthMode::Token;
            config.locks.takeover = Takeover::Admins;
        },
    ) else {
        return;
    };
    assert!(alice.git(&["lfs", "lock", "hero.psd"]).contains("Locked hero.psd"));
    bob.fails(&["lfs", "lock", "hero.psd"], "alice has locked this file.");
    alice.fails(&["lfs", "lock", "hero.psd"], "You have locked this file already.");
    let listed = bob.git(&["lfs", "locks"]);
    assert!(listed.contains("hero.psd") && listed.contains("alice") && listed.contains("ID:"), "{listed}");
    let verified = bob.git(&["lfs", "locks", "--verify"]);
    assert!(verified.starts_with("  hero.psd"), "{verified}");
    assert!(alice.git(&["lfs", "locks", "--verify"]).starts_with("O hero.psd"));
    // Bob's copy is read-only, as a lockable file is; he changes it all the same.
    fs::remove_file(bob.folder.join("hero.psd")).unwrap();
    bob.commit("hero.psd", "two, by bob");
    bob.fails(&["push", "origin", "main"], "hero.psd");
    bob.fails(&["lfs", "unlock", "hero.psd"], "alice has locked this file.");
    bob.fails(&["lfs", "unlock", "--force", "hero.psd"], "You may not end the lock of alice.");
    alice.git(&["lfs", "unlock", "hero.psd"]);
    bob.git(&["push", "-q", "origin", "main"]);
    // By id, and what the console ends.
    let locked = bob.git(&["lfs", "lock", "--json", "hero.psd"]);
    let lock: Value = serde_json::from_str(&locked).unwrap();
    let id = lock["id"].as_str().or_else(|| lock[0]["id"].as_str()).unwrap().to_owned();
    bob.git(&["lfs", "unlock", "--id", &id]);
    bob.git(&["lfs", "lock", "hero.psd"]);
    let mut admin = server.with_token(Scope::Admin, None);
    let listed = admin.get("/api/v1/locks?prefix=lfs%2F").expect(200);
    assert_eq!(listed["locks"][0]["kind"], "lfs");
    admin.delete("/api/v1/workspaces/lfs%2Fteam%2Fgame%3Ahero.psd/lock?force=true").expect(200);
    assert_eq!(bob.git(&["lfs", "locks"]), "");
    // And what is locked there is seen by Git.
    admin.acquire("lfs%2Fteam%2Fgame%3Ahero.psd", &json!({ "name": "Console" })).expect(200);
    assert!(bob.git(&["lfs", "locks"]).contains("Console"));
    bob.fails(&["lfs", "lock", "hero.psd"], "Console has locked this file.");
}

#[test]
fn the_real_client_pages_over_a_thousand_locks() {
    let Some((server, _place, alice, _)) = team(|_, _| "x".to_owned(), |_| {}) else { return };
    let mut api = Lfs::new(&server, "bob", "");
    for number in 0..1_001 {
        api.lock(&format!("file {number:04}.psd")).expect(201);
    }
    assert_eq!(alice.git(&["lfs", "locks"]).lines().count(), 1_001);
    assert_eq!(alice.git(&["lfs", "locks", "--verify"]).lines().count(), 1_001);
    assert_eq!(alice.git(&["lfs", "locks", "--limit", "7"]).lines().count(), 7);
    assert_eq!(alice.git(&["lfs", "locks", "--path", "hero.psd"]).lines().count(), 0);
}

#[test]
fn the_real_client_ends_with_a_wrong_password() {
    let Some((_server, _place, alice, _)) = team(
        |server, user| server.token(Scope::User, Some(user)),
        |config| {
            config.auth.mode = AuthMode::Token;
        },
    ) else {
        return;
    };
    let url = alice.git(&["config", "lfs.url"]);
    let (scheme, host) = (url.split("//").next().unwrap(), url.rsplit('@').next().unwrap().trim());
    alice.git(&["config", "lfs.url", &format!("{scheme}//{host}")]);
    alice.git(&["config", "credential.helper", "!f() { echo username=alice; echo password=wrong; }; f"]);
    let (succeeded, said) = alice.run(&["lfs", "locks"]);
    assert!(!succeeded && !said.is_empty(), "{said}");
}
