# cmake -D BINDING= -D GENERATED= -D PLATFORM= -D VERSION= -D CHECKPOINT= -D PACKAGE= -D STRIP= -P package.cmake
# PACKAGE: the folder of a Unity package, and PACKAGE-<version>.tgz of it. C# comes as source, so that IL2CPP and every
# version of Unity compile it. Folders that end with ~ are not imported by Unity.
include(${CMAKE_CURRENT_LIST_DIR}/../stage.cmake)
set(here ${CMAKE_CURRENT_LIST_DIR})
file(REMOVE_RECURSE ${PACKAGE})
configure_file(${here}/package.json.in ${PACKAGE}/package.json @ONLY)
file(COPY ${here}/README.md ${here}/Runtime ${here}/Editor DESTINATION ${PACKAGE})
configure_file(${home}/LICENSE ${PACKAGE}/LICENSE.md COPYONLY)
configure_file(${home}/packaging/NOTICE "${PACKAGE}/Third Party Notices.md" COPYONLY)
file(GLOB sources ${here}/../src/*.cs)
file(COPY ${sources} DESTINATION ${PACKAGE}/Runtime)
file(GLOB sources ${GENERATED}/*.cs)
file(COPY ${sources} DESTINATION ${PACKAGE}/Runtime/Generated)
stage_library(${PACKAGE}/Runtime/Plugins/${PLATFORM})
stage_checkpoint(${PACKAGE}/nano~)
file(COPY ${home}/samples/csharp/Npc.cs DESTINATION ${PACKAGE}/Samples~/Npc)

# A .meta file for everything that Unity imports. Its guid is made of the path, so that projects keep their references
# from version to version.
set(desktop "  isPreloaded: 0
  isOverridable: 0
  platformData:
  - first:
      Any: 
    second:
      enabled: 0
      settings: {}
  - first:
      Editor: Editor
    second:
      enabled: 1
      settings:
        CPU: x86_64
        DefaultValueInitialized: true
        OS: Linux
  - first:
      Standalone: Linux64
    second:
      enabled: 1
      settings:
        CPU: x86_64
")
function(write_meta path)
  string(MD5 guid "ai.dsv/${path}")
  get_filename_component(name ${path} NAME)
  set(folder "")
  set(body "  externalObjects: {}\n")
  if(IS_DIRECTORY "${PACKAGE}/${path}")
    set(folder "folderAsset: yes\n")
    set(importer DefaultImporter)
  elseif(name STREQUAL package.json)
    set(importer PackageManifestImporter)
  elseif(name MATCHES "\\.cs$")
    set(importer MonoImporter)
    string(APPEND body "  serializedVersion: 2\n  defaultReferences: []\n  executionOrder: 0\n  icon: {instanceID: 0}\n")
  elseif(name MATCHES "\\.asmdef$")
    set(importer AssemblyDefinitionImporter)
  elseif(name MATCHES "\\.so$")
    set(importer PluginImporter)
    string(APPEND body "  serializedVersion: 2\n  iconMap: {}\n  executionOrder: {}\n  defineConstraints: []\n${desktop}")
  else()
    set(importer TextScriptImporter)
  endif()
  string(APPEND body "  userData: \n  assetBundleName: \n  assetBundleVariant: \n")
  file(WRITE "${PACKAGE}/${path}.meta" "fileFormatVersion: 2\nguid: ${guid}\n${folder}${importer}:\n${body}")
endfunction()
file(GLOB_RECURSE paths LIST_DIRECTORIES ON RELATIVE ${PACKAGE} ${PACKAGE}/*)
foreach(path IN LISTS paths)
  if(NOT path MATCHES "^nano~|^Samples~$")
    write_meta("${path}")
  endif()
endforeach()

# As npm packs it: everything in the folder `package`.
get_filename_component(name ${PACKAGE} NAME)
set(stage ${PACKAGE}.stage)
file(REMOVE_RECURSE ${stage})
file(MAKE_DIRECTORY ${stage})
file(CREATE_LINK ${PACKAGE} ${stage}/package SYMBOLIC)
file(GLOB_RECURSE files RELATIVE ${stage} FOLLOW_SYMLINKS ${stage}/package/*)
list(JOIN files "\n" list)
file(WRITE ${stage}/files "${list}\n")
execute_process(COMMAND ${CMAKE_COMMAND} -E tar czf ${PACKAGE}-${VERSION}.tgz --format=gnutar "--mtime=2026-01-01 00:00:00 UTC"
                        --files-from=files WORKING_DIRECTORY ${stage} COMMAND_ERROR_IS_FATAL ANY)
file(REMOVE_RECURSE ${stage})
message(STATUS "${PACKAGE}-${VERSION}.tgz")
