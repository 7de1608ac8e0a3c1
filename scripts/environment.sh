# Creates .venv in the root of the repository and installs the package into it, once. The other scripts source it.
# Usage: source scripts/environment.sh EXTRAS

python_is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; }

if [ ! -x .venv/bin/python ]; then
  for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11 python3.10; do
    if python_is_new_enough "$candidate"; then
      echo "Making .venv with $("$candidate" --version)"
      "$candidate" -m venv .venv
      break
    fi
  done
fi
if [ ! -x .venv/bin/python ]; then
  echo "error: this needs Python 3.10 or newer with the venv module; name one with PYTHON=/path/to/python" >&2
  exit 1
fi
# Installs again if pyproject.toml has changed, or the last installation was interrupted.
stamp="$(cksum <pyproject.toml)"
if [ "$(cat ".venv/installed-$1" 2>/dev/null)" != "$stamp" ]; then
  echo "Installing into .venv (torch is large; a few minutes on a slow line)"
  .venv/bin/python -m pip install --quiet --editable ".[$1]"
  echo "$stamp" >".venv/installed-$1"
fi
