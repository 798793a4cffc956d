//! [`State`]: users and roles, and the rules by which they change. Pure.

use bytes::Bytes;
use quorate_proto::etcd::authpb::{Permission, Role};
use tonic::Status;

use super::ROOT;
use super::password::PasswordHash;
use crate::etcd::error;

/// All that the etcd API knows of users. A protobuf message, for it is stored.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct State {
    /// Must callers authenticate?
    #[prost(bool, tag = "1")]
    pub enabled: bool,
    /// Counts the changes, as etcd's auth revision does.
    #[prost(uint64, tag = "2")]
    pub revision: u64,
    /// Signs tokens; made when authentication is switched on for the first time.
    #[prost(bytes = "bytes", tag = "3")]
    pub secret: Bytes,
    /// In order of names.
    #[prost(message, repeated, tag = "4")]
    pub users: Vec<User>,
    /// In order of names.
    #[prost(message, repeated, tag = "5")]
    pub roles: Vec<Role>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct User {
    #[prost(string, tag = "1")]
    pub name: String,
    /// `None`: cannot log in with a password.
    #[prost(message, optional, tag = "2")]
    pub password: Option<PasswordHash>,
    /// In order.
    #[prost(string, repeated, tag = "3")]
    pub roles: Vec<String>,
}

type Changed = Result<(), Status>;

pub(crate) fn role_name(role: &Role) -> String {
    String::from_utf8_lossy(&role.name).into_owned()
}

impl State {
    pub(crate) fn user(&self, name: &str) -> Result<&User, Status> {
        self.users.iter().find(|user| user.name == name).ok_or_else(error::user_not_found)
    }

    pub(crate) fn role(&self, name: &str) -> Result<&Role, Status> {
        let named = |role: &&Role| role.name.as_ref() == name.as_bytes();
        self.roles.iter().find(named).ok_or_else(error::role_not_found)
    }

    fn user_mut(&mut self, name: &str) -> Result<&mut User, Status> {
        self.users.iter_mut().find(|user| user.name == name).ok_or_else(error::user_not_found)
    }

    fn role_mut(&mut self, name: &str) -> Result<&mut Role, Status> {
        let named = |role: &&mut Role| role.name.as_ref() == name.as_bytes();
        self.roles.iter_mut().find(named).ok_or_else(error::role_not_found)
    }

    /// Without its root user nobody could switch authentication off again.
    fn protects(&self, name: &str) -> Changed {
        if self.enabled && name == ROOT { Err(error::invalid_auth_management()) } else { Ok(()) }
    }

    pub(crate) fn enable(&mut self) -> Changed {
        let root = self.user(ROOT).map_err(|_| error::root_user_not_exist())?;
        if !root.roles.iter().any(|role| role == ROOT) {
            return Err(error::root_role_not_exist());
        }
        self.enabled = true;
        if self.secret.is_empty() {
            self.secret = super::password::new_secret()?;
        }
        Ok(())
    }

    pub(crate) fn disable(&mut self) -> Changed {
        self.enabled = false;
        Ok(())
    }

    pub(crate) fn add_user(&mut self, name: &str, password: Option<PasswordHash>) -> Changed {
        if name.is_empty() {
            return Err(error::user_empty());
        }
        match self.users.binary_search_by(|user| user.name.as_str().cmp(name)) {
            Ok(_) => Err(error::user_already_exist()),
            Err(at) => {
                let user = User { name: name.to_owned(), password, roles: Vec::new() };
                self.users.insert(at, user);
                Ok(())
            }
        }
    }

    pub(crate) fn delete_user(&mut self, name: &str) -> Changed {
        self.protects(name)?;
        self.user(name)?;
        self.users.retain(|user| user.name != name);
        Ok(())
    }

    pub(crate) fn change_password(
        &mut self,
        name: &str,
        password: Option<PasswordHash>,
    ) -> Changed {
        self.user_mut(name)?.password = password;
        Ok(())
    }

    pub(crate) fn grant_role(&mut self, name: &str, role: &str) -> Changed {
        self.user(name)?;
        // The role of the root user needs no entry.
        if role != ROOT {
            self.role(role)?;
        }
        let roles = &mut self.user_mut(name)?.roles;
        if let Err(at) = roles.binary_search_by(|granted| granted.as_str().cmp(role)) {
            roles.insert(at, role.to_owned());
        }
        Ok(())
    }

    pub(crate) fn revoke_role(&mut self, name: &str, role: &str) -> Changed {
        if role == ROOT {
            self.protects(name)?;
        }
        let roles = &mut self.user_mut(name)?.roles;
        let before = roles.len();
        roles.retain(|granted| granted != role);
        if roles.len() == before { Err(error::role_not_granted()) } else { Ok(()) }
    }

    pub(crate) fn add_role(&mut self, name: &str) -> Changed {
        if name.is_empty() {
            return Err(error::role_empty());
        }
        match self.roles.binary_search_by(|role| role.name.as_ref().cmp(name.as_bytes())) {
            Ok(_) => Err(error::role_already_exist()),
            Err(at) => {
                let name = Bytes::copy_from_slice(name.as_bytes());
                self.roles.insert(at, Role { name, key_permission: Vec::new() });
                Ok(())
            }
        }
    }

    pub(crate) fn delete_role(&mut self, name: &str) -> Changed {
        self.protects(name)?;
        self.role(name)?;
        self.roles.retain(|role| role.name.as_ref() != name.as_bytes());
        self.users.iter_mut().for_each(|user| user.roles.retain(|role| role != name));
        Ok(())
    }

    pub(crate) fn grant_permission(&mut self, role: &str, permission: Permission) -> Changed {
        let (key, end) = (&permission.key, &permission.range_end);
        let bounded = !end.is_empty() && end.as_ref() != [0];
        if key.is_empty() || (bounded && end <= key) {
            return Err(error::invalid_auth_management());
        }
        let permissions = &mut self.role_mut(role)?.key_permission;
        let place =
            permissions.binary_search_by(|other| (&other.key, &other.range_end).cmp(&(key, end)));
        match place {
            Ok(at) => permissions[at] = permission,
            Err(at) => permissions.insert(at, permission),
        }
        Ok(())
    }

    pub(crate) fn revoke_permission(&mut self, role: &str, key: &Bytes, end: &Bytes) -> Changed {
        let permissions = &mut self.role_mut(role)?.key_permission;
        let before = permissions.len();
        permissions.retain(|other| (&other.key, &other.range_end) != (key, end));
        if permissions.len() == before { Err(error::permission_not_granted()) } else { Ok(()) }
    }
}
