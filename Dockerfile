# kvplan, and what it requires at the versions that all tests ran with. `docker run --rm -v "$PWD:/work" IMAGE simulate --trace mine.json`
# The first stage has git, which tells the version by tags.
FROM python:3.12 AS build
WORKDIR /src
COPY . .
RUN python -m venv /opt/kvplan && /opt/kvplan/bin/python -m pip install --no-cache-dir -c constraints.txt .

FROM python:3.12-slim
COPY --from=build /opt/kvplan /opt/kvplan
ENV PATH=/opt/kvplan/bin:$PATH MPLCONFIGDIR=/tmp/matplotlib
RUN useradd --uid 1000 --create-home kvplan
USER 1000
WORKDIR /work
ENTRYPOINT ["kvplan"]
CMD ["--help"]
