//! `[[webhooks]]` in the settings file.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use super::common::process::{fine, lockhouse, refused};
use super::common::receiver::SECRET;
use lockhouse::config::{self, MAX_WEBHOOKS, Sources};
use lockhouse::domain::event::{Ending, EventType};

/// What `lockhouse check` says about a settings file with this mode.
fn check(text: &str, mode: u32) -> std::process::Output {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lockhouse.toml");
    fs::write(&file, text.replace("DIRECTORY", directory.path().to_str().unwrap())).unwrap();
    fs::write(directory.path().join("secret"), format!("{SECRET}\n")).unwrap();
    fs::write(directory.path().join("short"), "whsec_c2hvcnQ=").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
    lockhouse().arg("check").arg("--config").arg(&file).output().unwrap()
}

fn webhook(name: &str) -> String {
    format!("[[webhooks]]\nname = \"{name}\"\nurl = \"https://app.example/\"\nsecret = \"{SECRET}\"\n")
}

#[test]
fn a_webhook_that_cannot_be_used_is_refused_with_its_line() {
    let with = |line: &str| {
        format!(
            "[server]\n\n[[webhooks]]\nname = \"a\"\nurl = \"http://a/\"\nsecret_file = \"DIRECTORY/secret\"\n{line}\n"
        )
    };
    let url = |url: &str| with("").replace("http://a/", url);
    let not_a_url = "an http or https URL without a user, a password and a fragment";
    let not_a_name = "1 to 64 letters, digits, - and _";
    let not_a_secret = "whsec_ and the base64 of at least 24 bytes";
    let secret = |secret: &str| {
        with("").replace("secret_file = \"DIRECTORY/secret\"", &format!("secret = \"{secret}\""))
    };
    for (text, says) in [
        (
            with("evnts = []"),
            "toml:7: there is no setting webhooks.evnts; [webhooks] has name, url, secret, secret_file, events, workspace_prefix",
        ),
        (
            with("events = [\"lock.eaten\"]"),
            "webhooks.events = [\"lock.eaten\"] cannot be used; it takes a list of up to",
        ),
        (with("events = [\"reset\"]"), "types of events, of \"lock.acquired\""),
        (with("workspace_prefix = 3"), "toml:7: webhooks.workspace_prefix = 3 cannot be used"),
        (url("ftp://a/"), not_a_url),
        (url("a.example/hook"), not_a_url),
        (url("/hook"), not_a_url),
        (url("http:///hook"), not_a_url),
        (url("http://"), not_a_url),
        (url("http://alice:secret@a/"), not_a_url),
        (url("http://alice@a/"), not_a_url),
        (url("http://a:99999/"), not_a_url),
        (url("http://a:0/"), not_a_url),
        (url("http://a:/"), not_a_url),
        (url("http://a/#part"), not_a_url),
        (url("http://a b/"), not_a_url),
        (url("http://ä/"), not_a_url),
        (url(&format!("http://a/{}", "x".repeat(2_048))), not_a_url),
        (with("").replace("\"a\"", "\"\""), not_a_name),
        (with("").replace("\"a\"", "\"a b\""), not_a_name),
        (with("").replace("\"a\"", "\"..\""), not_a_name),
        (with("").replace("\"a\"", &format!("\"{}\"", "a".repeat(65))), not_a_name),
        (with("").replace("name = \"a\"\n", ""), "toml:3: a webhook needs name"),
        (with("").replace("url = \"http://a/\"\n", ""), "toml:3: a webhook needs url"),
        (with(&format!("secret = \"{SECRET}\"")), "the webhook a needs either secret or secret_file"),
        (
            with("").replace("secret_file", "workspace_prefix"),
            "the webhook a needs either secret or secret_file",
        ),
        (with("").replace("/secret", "/nowhere"), "webhook a: the secret in "),
        (with("").replace("/secret", "/nowhere"), "nowhere cannot be read: No such file"),
        (with("").replace("/secret", "/short"), "short cannot be used; it takes whsec_"),
        (secret("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), not_a_secret),
        (secret("whsec_c2hvcnQ="), not_a_secret),
        (secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS!"), not_a_secret),
        (webhook("a") + &webhook("a"), "toml:5: there are two webhooks with the name a"),
        (
            (0..=MAX_WEBHOOKS).map(|number| webhook(&format!("w{number}"))).collect(),
            "there are more than 32 webhooks",
        ),
        ("[webhooks]\nname = \"a\"\n".to_owned(), "toml:1: webhooks is a list: write [[webhooks]]"),
        ("webhooks = [3]\n".to_owned(), "webhooks is a list of tables"),
        ("[hooks]\n".to_owned(), "[log] and [[webhooks]]"),
    ] {
        let output = check(&text, 0o600);
        refused(&output, says);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("MfKQ9r8GKY") && !said.contains("c2hvcnQ"), "a secret is shown: {said}");
    }
}

#[test]
fn a_secret_in_a_file_that_others_can_read_is_refused() {
    refused(
        &check(&webhook("a"), 0o644),
        "webhooks.secret is a secret, and others can read this file (mode 644): chmod 600 it, or use secret_file instead",
    );
    fine(&check(&webhook("a"), 0o600));
    let elsewhere = "[[webhooks]]\nname = \"a\"\nurl = \"http://a/\"\nsecret_file = \"DIRECTORY/secret\"\n";
    fine(&check(elsewhere, 0o644));
}

#[test]
fn the_settings_in_force_are_shown_without_the_secret() {
    let text =
        webhook("a") + "events = [\"lock.acquired\", \"lock.released\"]\nworkspace_prefix = \"team/\"\n";
    let shown = fine(&check(&text, 0o600));
    let expected = "[[webhooks]]\nname = \"a\"\nurl = \"https://app.example/\"\n# secret = \"whsec_…\"\nsecret_file = \"\"\nevents = [\"lock.acquired\", \"lock.released\"]\nworkspace_prefix = \"team/\"\n";
    assert!(shown.contains(expected), "{shown}");
    assert!(!shown.contains(&SECRET[6..]));
}

#[test]
fn the_settings_of_webhooks_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let (file, secret) = (directory.path().join("lockhouse.toml"), directory.path().join("secret"));
    fs::write(&secret, format!("  {SECRET}\n\n")).unwrap();
    let text = format!(
        "[[webhooks]]\nname = \"One_1-x\"\nurl = \"HTTP://[::1]:8080/a?b=c\"\nsecret_file = \"{}\"\nevents = [\"lock.expired\"]\n[[webhooks]]\nname = \"two\"\nurl = \"https://two.example\"\nsecret_file = \"{0}\"\n",
        secret.display()
    );
    fs::write(&file, text).unwrap();
    let loaded = config::load(&Sources { file: Some(file), ..Sources::default() }).unwrap();
    let [one, two] = &loaded.config.webhooks[..] else { panic!("{loaded:?}") };
    assert_eq!((one.name.as_str(), two.name.as_str()), ("One_1-x", "two"));
    assert_eq!(one.events, [EventType::Ended(Ending::Expired)]);
    assert!(two.events.is_empty() && two.workspace_prefix.is_empty());
    let key = |webhook: &config::Webhook| webhook.secret.as_ref().unwrap().key().len();
    assert_eq!((key(one), key(two)), (24, 24));
    assert!(!format!("{loaded:?}").contains("MfKQ"));
}
