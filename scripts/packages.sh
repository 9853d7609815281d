# Debian packages, for the scripts that source this: installed by apt, or from Debian 13 unpacked into a folder. Each
# function says what failed and returns non-zero; the script that sources this defines say.

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else say "this needs root, and there is no sudo: $*"; return 1; fi
}

# The package lists are fetched once a run, and only when something has to be installed.
apt_updated=
apt_update() {
  [ -n "$apt_updated" ] && return
  say "fetching the package lists"
  as_root apt-get -qq update || say "apt-get update reported errors; going on with the lists there are"
  apt_updated=1
}

install_packages() {
  local package output missing=()
  for package in "$@"; do
    dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} = 0 ] && return
  apt_update
  say "installing ${missing[*]}"
  output=$(as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends -y "${missing[@]}" 2>&1) ||
    { tail -n 20 <<<"$output" >&2; say "apt-get could not install: ${missing[*]}"; return 1; }
}

# Where this system has Debian from: `URL codename` of each archive, the security archive among them.
debian_archives() {
  apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Origin: Debian' 'Component: main' 'Created-By: Packages' "$@"
}
debian_mirror() { debian_archives 'Label: Debian' | head -n 1 | cut -d ' ' -f 1; }

# own_apt FOLDER LINE... : makes `apt` an apt-get with lists, sources and a cache of its own in FOLDER, and fetches the
# lists; signed like those of the system, which it does not touch.
own_apt() {
  local own=$1
  shift
  rm -rf "$own"
  mkdir -p "$own/lists/partial" "$own/cache/archives/partial" "$own/parts"
  printf '%s\n' "$@" >"$own/sources.list"
  apt=(apt-get -qq -o "Dir::Etc::SourceList=$own/sources.list" -o "Dir::Etc::SourceParts=$own/parts"
    -o "Dir::State::Lists=$own/lists" -o "Dir::Cache=$own/cache" -o APT::Sandbox::User=
    -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false
    -o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false)
  "${apt[@]}" update
}
signed_by=signed-by=/usr/share/keyrings/debian-archive-keyring.gpg

# unpack_debian13 FOLDER PACKAGE... : from the mirror that this system uses. FOLDER must not exist yet.
unpack_debian13() {
  local folder=$1 own=$1.apt mirror deb
  shift
  mirror=$(debian_mirror)
  if [ -z "$mirror" ]; then apt_update; mirror=$(debian_mirror); fi
  [ -n "$mirror" ] || { say "apt knows no Debian mirror"; return 1; }
  say "unpacking $* from Debian 13 into ${folder#"$PWD/"}"
  own_apt "$own" "deb [$signed_by] $mirror trixie main" || { say "the lists of Debian 13 could not be fetched"; return 1; }
  (cd "$own" && "${apt[@]}" download "$@") || { say "could not be fetched: $*"; return 1; }
  mkdir -p "$folder"
  for deb in "$own"/*.deb; do dpkg-deb -x "$deb" "$folder" || return 1; done
  rm -rf "$own"
}
