#!/usr/bin/env bash
# python.sh DSV SOURCE_DIR BUILT PYTHON PACKAGE_DIR: samples/python, by a trained model and with matplotlib where there is.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[[ $3 == ON ]] || { echo 'SKIPPED: the Python binding is not built'; exit 77; }
python=$4
export PYTHONPATH=$5 PYTHONDONTWRITEBYTECODE=1
cd "$work"
"$python" "$2/samples/python/quickstart.py" "$model" >out || die 'quickstart.py'
[[ $(wc -c <out) -gt 5 ]] || die 'quickstart.py says nothing'
"$python" "$2/samples/python/weather.py" "$model" --png weather.png >out || die 'weather.py'
cat out
if "$python" -c 'import matplotlib' 2>/dev/null; then
  is_png weather.png || die 'weather.png is not a PNG'
else
  grep -q 'matplotlib is not installed' out || die 'it does not say why there is no plot'
fi
if ((trained)); then
  grep -q '^\[get_weather: Lisbon, 2026-11-24\]' out || die 'get_weather was not called'
  grep -q 'rainy' out || die 'the answer does not use the result'
fi
