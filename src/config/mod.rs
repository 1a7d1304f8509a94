//! The settings: file + environment + flags → one checked [`Config`].
//!
//! Precedence: flags, environment, file, default. Each setting is defined once, in `settings.rs`. The struct, the
//! file, the environment, `lockhouse check`, `config.example.toml` and `docs/settings.md` are derived from it.

mod check;
mod database;
mod kinds;
mod load;
mod render;
mod setting;
mod settings;
mod types;
mod webhooks;

pub use load::{CLIENT_VARIABLES, ConfigError, Loaded, Sources, load, read};
pub use render::{changed, effective, example, page};
pub use setting::Setting;
pub use settings::*;
pub use types::*;
pub use webhooks::{MAX_WEBHOOKS, Webhook, WebhookSecret};

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::time::Ttl;

    fn environment(pairs: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
        let environment =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        load(&Sources { environment, ..Sources::default() })
    }

    fn file(text: &str) -> Result<Loaded, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lockhouse.toml");
        std::fs::write(&path, text).unwrap();
        load(&Sources { file: Some(path), ..Sources::default() })
    }

    #[test]
    fn precedence_is_flags_then_environment_then_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lockhouse.toml");
        std::fs::write(
            &path,
            "[locks]\ndefault_ttl = \"1m\"\nmin_ttl = \"5s\"\n[database]\npath = \"a.db\"\n",
        )
        .unwrap();
        let loaded = load(&Sources {
            file: Some(path),
            environment: vec![
                ("LOCKHOUSE_LOCKS_DEFAULT_TTL".into(), "2m".into()),
                ("LOCKHOUSE_DATABASE_PATH".into(), "b.db".into()),
                ("LOCKHOUSE_DATABASE_URL".into(), "postgres://b".into()),
                ("HOME".into(), "/".into()),
            ],
            flags: vec![("--database", "c.db".into())],
        })
        .unwrap();
        assert_eq!(loaded.config.locks.min_ttl, Ttl::from_millis(5_000));
        assert_eq!(loaded.config.locks.default_ttl, Ttl::from_millis(120_000));
        assert_eq!(loaded.config.database.path, PathBuf::from("c.db"));
        assert_eq!(loaded.config.database.url, None);
    }

    #[test]
    fn a_bad_value_is_refused_with_source_key_and_allowed_values() {
        for (text, parts) in [
            ("[locks]\ndefault_ttl = \"soon\"\n", vec!["lockhouse.toml", "locks.default_ttl", "soon", "10m"]),
            ("[locks]\ndefault_ttl = 600\n", vec!["locks.default_ttl", "600", "10m"]),
            ("[locks]\ntakeover = \"dogs\"\n", vec!["locks.takeover", "dogs", "anyone", "admins", "nobody"]),
            ("[locks]\ntll = \"1m\"\n", vec!["lockhouse.toml", "locks.tll", "default_ttl", "restart_grace"]),
            ("[lock]\nttl = \"1m\"\n", vec!["[lock]", "[locks]"]),
            ("locks = 3\n", vec!["[locks]"]),
            ("[database]\nbusy_timeout = \"30d\"\n", vec!["database.busy_timeout", "30d", "to 1h"]),
            ("[locks\n", vec!["lockhouse.toml", "TOML"]),
            ("[server]\nlisten = \"7311\"\n", vec!["server.listen", "7311", "127.0.0.1:7311"]),
            ("[server]\nlisten = \"0.0.0.0:7311\"\n", vec!["server.listen", "0.0.0.0:7311", "loopback"]),
            ("[server]\ncors_origins = [1]\n", vec!["server.cors_origins", "1"]),
            ("[server]\ncors_origins = [\"https://*.example\"]\n", vec!["server.cors_origins", "no *"]),
            (
                "[server]\ncors_origins = [\"https://a.example/\"]\n",
                vec!["server.cors_origins", "no slash at the end"],
            ),
            (
                "[locks]\ndefault_ttl = \"48h\"\n",
                vec!["locks.default_ttl", "2d", "locks.max_ttl", "24h", "change"],
            ),
            (
                "[locks]\nknock_grant_after = \"6m\"\n",
                vec!["locks.knock_grant_at_latest", "5m", "locks.knock_grant_after", "6m", "change"],
            ),
            (
                "[server]\nmax_body = \"16MiB\"\nmax_buffered = \"32MiB\"\n",
                vec!["server.max_buffered", "server.max_body"],
            ),
            ("[server]\nmax_headers = 4\n", vec!["server.max_headers", "4", "8 to 256"]),
            ("[server]\nmax_headers = \"many\"\n", vec!["server.max_headers", "many"]),
            ("[server]\nmax_head = \"2MiB\"\n", vec!["server.max_head", "2MiB", "1MiB"]),
            ("[server]\nsocket_mode = \"9\"\n", vec!["server.socket_mode", "0660"]),
            ("[server]\ntrusted_proxies = [\"10.0.0.0/40\"]\n", vec!["server.trusted_proxies", "10.0.0.0/8"]),
            ("[server]\nidle_timeout = \"2d\"\n", vec!["server.idle_timeout", "2d", "to 24h"]),
            ("[server]\nconsole = \"maybe\"\n", vec!["server.console", "maybe", "true or false"]),
            ("[server]\nlisten = true\n", vec!["server.listen", "true"]),
            ("[server]\nlisten = \"unix:\"\n", vec!["server.listen", "unix:PATH"]),
            ("[locks]\nmin_ttl = \"2h\"\n", vec!["locks.min_ttl", "locks.default_ttl"]),
            ("[kinds.run]\ndefault_ttl = \"2d\"\n", vec!["kinds.run.default_ttl", "2d", "kinds.run.max_ttl"]),
            (
                "[kinds.run]\ntll = \"1m\"\n",
                vec!["lockhouse.toml:2:", "kinds.run.tll", "[kinds.run] has default_ttl"],
            ),
            ("[kinds.dog]\nttl = \"1m\"\n", vec!["lockhouse.toml:1:", "[kinds.dog]", "[kinds.lfs]"]),
            ("[kinds]\nrun = 3\n", vec!["lockhouse.toml:2:", "kinds.run", "write [kinds.run]"]),
            ("kinds = 3\n", vec!["[kinds]", "[kinds.run]"]),
        ] {
            let message = file(text).unwrap_err().to_string();
            for part in parts {
                assert!(message.contains(part), "{part:?} is missing in: {message}");
            }
        }
    }

    #[test]
    fn a_toml_syntax_error_does_not_show_the_line() {
        for (text, place) in [
            ("[auth]\njwt_secret = [\"do not tell anybody\n", "line 2, column "),
            ("[auth]\njwt_secret = do not tell\n", "line 2, column 14"),
            ("do not tell", "line 1, column "),
        ] {
            let message = file(text).unwrap_err().to_string();
            assert!(message.contains(place) && !message.contains("tell"), "{message}");
        }
    }

    #[test]
    fn unknown_variables_are_refused_except_those_of_kubernetes() {
        let (message, place) =
            (file("[server]\n\n[locks]\ntll = \"1m\"\n").unwrap_err().to_string(), "lockhouse.toml:4: ");
        assert!(message.contains(place), "{message}");
        let message = environment(&[("LOCKHOUSE_KINDS_RUN_TTL", "1m")]).unwrap_err().to_string();
        assert!(message.contains("[kinds.run] has default_ttl"), "{message}");
        let message = environment(&[("LOCKHOUSE_LOCKS_TTL", "1m")]).unwrap_err().to_string();
        assert!(message.contains("LOCKHOUSE_LOCKS_TTL") && message.contains("default_ttl"), "{message}");
        let loaded =
            environment(&[("LOCKHOUSE_SERVICE_HOST", "10.0.0.1"), ("LOCKHOUSE_PORT", "tcp://x")]).unwrap();
        assert_eq!(loaded.config, Config::default());
        assert_eq!(loaded.warnings.len(), 2);
    }

    #[test]
    fn the_variables_of_client_commands_cause_no_warning() {
        let loaded = environment(&CLIENT_VARIABLES.map(|name| (name, "x"))).unwrap();
        assert_eq!((loaded.config, loaded.warnings), (Config::default(), Vec::new()));
    }

    #[test]
    fn the_environment_can_hold_lists_and_never() {
        let loaded = environment(&[
            (
                "LOCKHOUSE_SERVER_CORS_ORIGINS",
                "https://a.example, HTTPS://B.Example:443,http://c.example:8080",
            ),
            ("LOCKHOUSE_SWEEPER_INTERVAL", "never"),
            ("LOCKHOUSE_KINDS_TERRAFORM_MAX_TTL", "3d"),
            ("LOCKHOUSE_SERVER_CONSOLE", "false"),
            ("LOCKHOUSE_DATABASE_MAX_SIZE", "64MiB"),
        ])
        .unwrap();
        assert_eq!(
            loaded.config.server.cors_origins,
            ["https://a.example", "https://b.example", "http://c.example:8080"],
            "as browsers write them"
        );
        assert_eq!(loaded.config.sweeper.interval, None);
        assert_eq!(loaded.config.kinds_terraform.max_ttl, Ttl::from_millis(3 * 24 * 60 * 60 * 1_000));
        assert!(!loaded.config.server.console);
        assert_eq!(loaded.config.database.max_size, Some(64 * 1024 * 1024));
    }

    #[test]
    fn the_address_of_the_database_can_be_in_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("url");
        let shown = path.to_str().unwrap();
        let read = || environment(&[("LOCKHOUSE_DATABASE_URL_FILE", shown)]);
        assert!(read().unwrap_err().to_string().contains("cannot read database.url_file"));
        std::fs::write(&path, "postgres://u:sesame@h/d\n").unwrap();
        let config = read().unwrap().config;
        assert_eq!(config.database.url, Some(Secret::from("postgres://u:sesame@h/d")));
        assert!(!format!("{config:?}{}{}", effective(&config), changed(&config)).contains("sesame"));
        let both =
            [("LOCKHOUSE_DATABASE_URL_FILE", shown), ("LOCKHOUSE_DATABASE_URL", "postgres://u:sesame@h/d")];
        let refused = environment(&both).unwrap_err().to_string();
        assert!(refused.contains("both set") && !refused.contains("sesame"), "{refused}");
        std::fs::write(&path, "mysql://u:sesame@h/d").unwrap();
        let refused = read().unwrap_err().to_string();
        assert!(refused.contains("postgres://") && !refused.contains("sesame"), "{refused}");
    }

    #[test]
    fn every_shown_setting_parses_back() {
        let config = Config::default();
        for setting in SETTINGS.iter() {
            let shown = format!("[{}]\n{} = {}\n", setting.section, setting.name, setting.show(&config));
            assert_eq!(file(&shown).unwrap().config, config, "{shown}");
        }
    }
}
